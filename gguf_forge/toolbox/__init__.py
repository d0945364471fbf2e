"""Tools for GGUF files: look into them, prove them right, change them. One file per verb."""
