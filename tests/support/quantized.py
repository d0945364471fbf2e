"""Runs of `quantize` whose files are pinned in tests/quantized.json; reference/make_quantized.py made the digests.

Each has a family (tests/families) and the type of the file to start from, and steps: arguments of `quantize` for one
run after the other, each on the (first) file that the one before made. They run in the folder of the file to
start from, where imatrix.gguf and imatrix.dat are: names of matrices are recorded as given.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from imatrices import write_for_model
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import convert

PINNED = Path(__file__).parents[1] / "quantized.json"


def pinned_runs() -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(PINNED.read_text())
    return runs


def name_of(run: dict[str, Any]) -> str:
    return " ".join([run["family"], run["base"], " then ".join(run["steps"])])


def make_base(family: str, base: str, folder: Path) -> Path:
    """The file of a family in a float type, pinned by planning/test_families.py; matrices for it lie beside it."""
    checkpoint = write_checkpoint(FAMILIES / family, folder / "hf")
    found = read_description(FAMILIES / family)
    hints = {"pre_tokenizer": found.pre_tokenizer, "as_reference": found.fault is not None}
    convert(checkpoint, folder / "base.gguf", types=base, **hints)
    write_for_model(folder / "base.gguf")
    return folder / "base.gguf"


def arguments_of(step: str, source: Path, out: Path) -> list[str]:
    """Options first, then source, output and type, as llama-quantize wants them."""
    *options, kind = shlex.split(step)
    return [*options, str(source), str(out), kind]


def digests(folder: Path) -> dict[str, list[int | str]]:
    """Name -> size and SHA-256 of every file."""
    return {path.name: digest(path.read_bytes()) for path in sorted(folder.iterdir())}


def digest(data: bytes) -> list[int | str]:
    return [len(data), hashlib.sha256(data).hexdigest()]
