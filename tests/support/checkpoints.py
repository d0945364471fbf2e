"""Small checkpoints for tests."""

from pathlib import Path

from gguf_forge import convert
from gguf_forge.cli.demo_checkpoint import Shape, make_model

TINY = Shape(n_embd=256, n_ff=256, n_layer=2, n_head=4, n_head_kv=2, n_ctx=128)
# Rows of 96 values are whole blocks of 32, not of 256: K-quants fall back.
NARROW = Shape(n_embd=96, n_ff=96, n_layer=1, n_head=2, n_head_kv=2, n_ctx=128)


def tiny_llama(folder: Path, shape: Shape = TINY, *, dtype: str = "BF16") -> Path:
    """A Llama folder `folder/Tiny`: a million weights in rows of 256, unless `shape` says otherwise."""
    make_model(folder / "Tiny", shape, dtype=dtype)
    return folder / "Tiny"


def tiny_gguf(folder: Path, types: str = "F16") -> Path:
    """A GGUF file `folder/tiny.gguf` of a Llama model of one layer."""
    convert(tiny_llama(folder, NARROW), folder / "tiny.gguf", types=types)
    return folder / "tiny.gguf"
