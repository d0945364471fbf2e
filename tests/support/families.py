"""Converts a described checkpoint to every file type that its expected.json names, and compares."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from synthetic import read_description, write_checkpoint

from gguf_forge.conversion import convert


def assert_files_are_expected(description: Path, scratch: Path) -> None:
    """Every file has the size and the digest of the one that llama.cpp's tools made."""
    checkpoint = write_checkpoint(description, scratch / "hf")
    expected = json.loads((description / "expected.json").read_text())
    made = {}
    for kind in expected:
        (result,) = convert(
            checkpoint,
            scratch / f"{kind}.gguf",
            types=kind,
            pre_tokenizer=read_description(description).pre_tokenizer,
        )
        made[kind] = _digest(result.path)
    assert made == expected


def _digest(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
