"""Quantized checkpoints: one file a scheme, found by what the config says.

A scheme turns the tensors that a checkpoint stores (`w.qweight`, `w.scales`, ...) into the logical ones (`w.weight`):
expressions that are dequantized row by row or, where ggml has the same blocks, repacked. A new scheme is a new file
here that defines a `SCHEME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules

from gguf_forge.checkpoint.checkpoint import Checkpoint
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme
from gguf_forge.errors import UnsupportedError, printable
from gguf_forge.tensors.expression import TensorExpr

# Where multimodal configs keep the part that describes the language model.
_TEXT_PARTS = ("text_config", "llm_config", "lm_config", "language_config")


def quantization_of(checkpoint: Checkpoint) -> Quantization | None:
    """What a checkpoint's config says of its quantization; None if it says nothing."""
    config = checkpoint.config
    parts = (config, *(config[part] for part in _TEXT_PARTS if isinstance(config.get(part), dict)))
    for part in parts:
        found = part.get("quantization_config")
        if isinstance(found, dict) and found:
            return Quantization(found, checkpoint.folder)
    return None


@lru_cache
def schemes() -> tuple[Scheme, ...]:
    """Every scheme, in the order of their files."""
    names = sorted(module.name for module in iter_modules(__path__))
    modules = (import_module(f"{__name__}.{name}") for name in names)
    return tuple(module.SCHEME for module in modules if hasattr(module, "SCHEME"))


def find_scheme(quantization: Quantization, stored: Mapping[str, TensorExpr]) -> Scheme:
    """The scheme of a quantized checkpoint.

    Raises:
        UnsupportedError: none is known.
    """
    for scheme in schemes():
        if scheme.fits(quantization, stored):
            return scheme
    raise UnsupportedError(
        f"checkpoints quantized with {printable(quantization.method)} are not supported yet",
        file=quantization.folder / "config.json",
        hint="convert the original 16-bit checkpoint",
    )
