"""Proves a GGUF file right."""
