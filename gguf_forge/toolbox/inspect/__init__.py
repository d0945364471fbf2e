"""Looks into GGUF files."""
