"""Models of real size: shapes, and for each file type the tensors that do not get its default type.

They are in recipe/data/models; the types are those of llama.cpp's tests/snapshots, or of runs of llama-quantize.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, string, u32
from gguf_forge.types.tensor_type import F32

Model = dict[str, Any]
MODELS = {
    path.stem: json.loads(path.read_text())
    for path in (Path(__file__).parents[1] / "recipe/data/models").glob("*.json")
}


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
