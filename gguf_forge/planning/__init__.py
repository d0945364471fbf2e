"""Plans files from a checkpoint, an adapter or a GGUF file: all their bytes except the values of the weights."""
