"""Types that the reference's rules give to models of real size, and to those that the rules treat apart.

`data/models` holds shapes and, for each file type, the tensors that do not get its default type.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, string, u32
from gguf_forge.recipe import ImportanceMatrix, Options, assign, file_type
from gguf_forge.tensor_types import F32

Model = dict[str, Any]
MODELS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "data/models").glob("*.json")}
MIXES = [
    pytest.param(model, name, with_imatrix, id=f"{stem}-{name}{'-imatrix' * with_imatrix}")
    for stem, model in sorted(MODELS.items())
    for with_imatrix, kind in ((False, "types"), (True, "types_with_imatrix"))
    for name in model.get(kind, ())
]


def numbers(spans: str) -> range | list[int]:
    bounds = [[int(end) for end in span.split("-")] for span in spans.split(",")]
    return [n for bound in bounds for n in range(bound[0], bound[-1] + 1)]


def header(model: Model) -> Metadata:
    name = model["architecture"]
    return {
        "general.architecture": string(name),
        f"{name}.block_count": u32(model["layers"]),
        f"{name}.expert_count": u32(model["experts"]),
        f"{name}.attention.head_count": u32(model["heads"]),
        f"{name}.attention.head_count_kv": u32(model["heads_kv"]),
    }


def base_tensors(model: Model) -> list[TensorInfo]:
    shapes = dict(model["tensors"])
    for block in model["blocks"]:
        for layer in numbers(block["layers"]):
            shapes |= {f"blk.{layer}.{part}": shape for part, shape in block["tensors"].items()}
    return [TensorInfo(name, tuple(shape), F32) for name, shape in shapes.items()]


def expand(mix: dict[str, dict[str, str]]) -> dict[str, str]:
    return {
        f"blk.{layer}.{part}" if spans else part: kind
        for kind, parts in mix.items()
        for part, spans in parts.items()
        for layer in (numbers(spans) if spans else [0])
    }


@pytest.mark.parametrize(("model", "name", "with_imatrix"), MIXES)
def test_types_equal_the_reference(model: Model, name: str, with_imatrix: bool) -> None:
    matrix = ImportanceMatrix("m.gguf", {"any": np.ones(1, np.float32)}) if with_imatrix else None
    options = Options(file_type(name), imatrix=matrix)
    assignments = assign(base_tensors(model), header(model), options)
    others = {a.name: a.type.name for a in assignments if a.type != options.file_type.default_type}
    expected = model["types_with_imatrix" if with_imatrix else "types"][name]
    assert others == expand(expected)
