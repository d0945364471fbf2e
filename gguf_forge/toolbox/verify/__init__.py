"""Verifies a GGUF file."""
