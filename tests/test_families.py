"""Whole conversions against llama.cpp's tools: the files of every family, pinned in tests/families.

The expected digests were made by reference/make_expected.py; none comes from this project.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge.convert import convert

CASES = sorted(folder.name for folder in FAMILIES.iterdir())


@pytest.mark.parametrize("family", CASES)
def test_every_file_is_the_reference_s(family: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    expected = json.loads((FAMILIES / family / "expected.json").read_text())
    results = convert(
        checkpoint,
        tmp_path / "{ftype}.gguf",
        types=[kind for kind in expected if kind != "auto"],
        pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer,
    )
    results += convert(
        checkpoint,
        tmp_path / "auto.gguf",
        types="auto",
        pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer,
    )
    made = {**{result.file.type.name: result.path for result in results[:-1]}, "auto": results[-1].path}
    assert {kind: _digest(path) for kind, path in made.items()} == expected


def _digest(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
