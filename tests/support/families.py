"""Converts a described checkpoint to every file type that its expected.json names, and compares."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from imatrices import WITH_IMATRIX, write_for_model
from synthetic import read_description, write_checkpoint

from gguf_forge import convert
from gguf_forge.recipe import Options, read_imatrix


def assert_files_are_expected(description: Path, scratch: Path) -> None:
    """Every file has the size and the digest of the one that llama.cpp's tools made."""
    checkpoint = write_checkpoint(description, scratch / "hf")
    expected = json.loads((description / "expected.json").read_text())
    made = {}
    pre_tokenizer = read_description(description).pre_tokenizer
    (base,) = convert(checkpoint, scratch / "base.gguf", types="auto", pre_tokenizer=pre_tokenizer)
    # The reference was given the matrix by its bare name, and writes that down.
    matrix = replace(read_imatrix(write_for_model(base.path)), file="imatrix.gguf")
    for kind in expected:
        (result,) = convert(
            checkpoint,
            scratch / "out.gguf",
            types=kind.removesuffix(WITH_IMATRIX),
            options=Options(imatrix=matrix) if kind.endswith(WITH_IMATRIX) else None,
            pre_tokenizer=pre_tokenizer,
            overwrite=True,
        )
        made[kind] = _digest(result.path)
    assert made == expected


def _digest(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
