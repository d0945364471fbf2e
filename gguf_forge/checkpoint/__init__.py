"""Reads Hugging Face folders and validates their tensors."""

from gguf_forge.checkpoint.checkpoint import Checkpoint
from gguf_forge.checkpoint.safetensors_file import StoredTensor

__all__ = ["Checkpoint", "StoredTensor"]
