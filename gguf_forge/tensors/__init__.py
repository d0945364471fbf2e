"""Tensors as expressions."""
