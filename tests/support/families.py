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

FLOAT_TYPES = ("auto", "F32", "F16", "BF16")


def assert_files_are_expected(description: Path, scratch: Path) -> None:
    """Every file has the size and the digest of the one that llama.cpp's tools made.

    One conversion makes all quantized files, and one all those with an importance matrix.
    """
    checkpoint = write_checkpoint(description, scratch / "hf")
    expected = json.loads((description / "expected.json").read_text())
    floats = [kind for kind in expected if kind in FLOAT_TYPES]
    quantized = [kind for kind in expected if kind not in FLOAT_TYPES and not kind.endswith(WITH_IMATRIX)]
    weighted = [kind.removesuffix(WITH_IMATRIX) for kind in expected if kind.endswith(WITH_IMATRIX)]
    found = read_description(description)
    hints = {"pre_tokenizer": found.pre_tokenizer, "as_reference": found.fault is not None}
    made = {}
    for kind in floats:  # several of these may have one {ftype}: that of what `auto` stands for, or MXFP4_MOE
        (result,) = convert(checkpoint, scratch / f"{kind}.gguf", types=kind, **hints)
        made[kind] = _digest(result.path)
    if quantized:
        results = convert(checkpoint, scratch / "{ftype}.gguf", types=quantized, **hints)
        made |= {kind: _digest(result.path) for kind, result in zip(quantized, results, strict=True)}
    if weighted:
        # The reference was given the matrix by its bare name, and writes that down.
        matrix = replace(read_imatrix(write_for_model(scratch / "auto.gguf")), file="imatrix.gguf")
        results = convert(
            checkpoint,
            scratch / "with-imatrix-{ftype}.gguf",
            types=weighted,
            options=Options(imatrix=matrix),
            **hints,
        )
        made |= {kind + WITH_IMATRIX: _digest(result.path) for kind, result in zip(weighted, results, strict=True)}
    assert made == expected


def _digest(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
