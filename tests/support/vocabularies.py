"""The vocabularies of converted folders, and texts to split with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gguf_forge import convert
from gguf_forge.gguf_file.opened import open_gguf

TEXTS = [
    "the file",
    "simple tile more",
    "Once upon a time, there was a little house in the wood; nobody lived there any more.",
    "Then the other children came nearer, and one of them said: listen!",
    "x = [i ** 2 for i in range(10)]  # squares",
    "Ünique café, 3.14 % — 1,000 naïve façades",
    "two  spaces, \t a tab",
]


def converted(folder: Path, **hints: Any) -> Path:
    """The file of a folder's model."""
    (result,) = convert(folder, folder.with_suffix(".gguf"), types="Q8_0", overwrite=True, **hints)
    return result.path


def keys(file: Path) -> dict[str, Any]:
    """The keys `tokenizer.ggml.*` by the rest of their names, and all others by their whole names; arrays as lists."""
    with open_gguf(file) as gguf:
        return {
            key.removeprefix("tokenizer.ggml."): value if isinstance(value, str | bytes | int | float) else list(value)
            for key, value in gguf.metadata.items()
        }
