"""Is the vocabulary right? Compares a checkpoint's own tokenizer with llama.cpp and the vocabulary of a GGUF file."""

from gguf_forge.toolbox.tokens.check import TextDifference, TokenCheck, check_tokens, require_libraries
from gguf_forge.toolbox.tokens.sample import SAMPLE, read_texts

__all__ = ["SAMPLE", "TextDifference", "TokenCheck", "check_tokens", "read_texts", "require_libraries"]
