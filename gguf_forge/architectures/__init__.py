"""Model families: the type of declarations (`declaration.py`), the families (`families/`), and what applies them."""

from gguf_forge.architectures.registry import find_architecture

__all__ = ["find_architecture"]
