"""Tensors as expressions. Each operation is one class that defines its shape, its rows, its memory need, its words for
people and its inverse."""
