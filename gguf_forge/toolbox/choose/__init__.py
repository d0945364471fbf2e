"""Which file type to take: the size of each, what it loses, and what fits into memory."""

from gguf_forge.toolbox.choose.choose import TypeChoice, TypeChoices, choose_type

__all__ = ["TypeChoice", "TypeChoices", "choose_type"]
