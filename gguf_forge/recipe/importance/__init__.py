"""Importance: how much an error in each column of a tensor counts."""
