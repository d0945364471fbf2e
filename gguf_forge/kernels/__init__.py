"""The compiled kernels, and what measures them."""
