"""Changes GGUF files."""
