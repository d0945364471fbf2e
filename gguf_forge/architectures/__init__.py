"""Model families: what a declaration is (`declaration.py`), the families (`families/`), and what follows them."""

from gguf_forge.architectures.registry import find_architecture

__all__ = ["find_architecture"]
