"""Bytes, wherever they lie."""
