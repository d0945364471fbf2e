"""Tensors as expressions. An operation is one class that carries its shape, its rows, its memory, its words and its
inverse."""
