"""Checkpoints with encoders and projectors, each described by one JSON file in tests/projectors.

`files` are the small files, `tensors` the shapes of all tensors; `{0-3}` in a name stands for four names. All are
bfloat16, with the weights of synthetic.py. `expected` are the sizes and digests of the files that llama.cpp's tools
made (reference/make_projectors.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthetic import tensor_bytes, write_safetensors

PROJECTORS = Path(__file__).parents[1] / "projectors"
_RANGE = re.compile(r"\{(\d+)-(\d+)\}")


def read(name: str) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((PROJECTORS / f"{name}.json").read_text())
    return description


def write(name: str, folder: Path) -> Path:
    """Writes the checkpoint to `folder`, which is made."""
    description = read(name)
    folder.mkdir(parents=True)
    for file, value in description["files"].items():
        (folder / file).write_text(json.dumps(value))
    shapes = {full: shape for name, shape in description["tensors"].items() for full in _expanded(name)}
    tensors = {full: ("BF16", shape, tensor_bytes(full, "BF16", shape)) for full, shape in sorted(shapes.items())}
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def _expanded(name: str) -> Iterator[str]:
    found = _RANGE.search(name)
    if found is None:
        yield name
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield name.replace(found[0], str(number), 1)
