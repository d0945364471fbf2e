"""From a checkpoint or a GGUF file to files that are decided to the last byte."""
