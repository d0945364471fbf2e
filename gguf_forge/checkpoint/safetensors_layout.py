"""The layout of .safetensors files, known before any weight is read. Source: the README of safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from gguf_forge.engine.batches import RowSource, Shard
from gguf_forge.gguf_file.header import padded
from gguf_forge.gguf_file.layout import Layout, PlacedTensor
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.tensor_type import TensorType

_NAME = "model.safetensors"
_ALIGNMENT = 8


def checkpoint_shards(
    folder: Path, tensors: Mapping[str, TensorExpr], kind: TensorType, max_size: int
) -> tuple[Shard, ...]:
    """The files of a checkpoint: `model.safetensors`, or an index and several files with at most `max_size` bytes of
    tensors each, where they can be kept to.

    Args:
        folder: The folder of the files.
        tensors: Name -> rows, in the order of the files.
        kind: F32, F16 or BF16, for all tensors.
        max_size: Bytes of tensors in a file.
    """
    parts: list[dict[str, TensorExpr]] = [{}]
    size = 0
    for name, expr in tensors.items():
        nbytes = kind.nbytes(expr.shape)
        if size + nbytes > max_size and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][name] = expr
        size += nbytes
    if len(parts) == 1:
        return (_shard(folder / _NAME, parts[0], kind),)
    names = [f"model-{number:05}-of-{len(parts):05}.safetensors" for number in range(1, len(parts) + 1)]
    index = {
        "metadata": {"total_size": sum(kind.nbytes(expr.shape) for expr in tensors.values())},
        "weight_map": {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part},
    }
    text = json.dumps(index, indent=2).encode() + b"\n"
    # The index is first in the list, so it gets its name last. Readers begin with the index, so it must not come early.
    begin = Shard(folder / f"{_NAME}.index.json", Layout(text, (), len(text)), ())
    return begin, *(_shard(folder / name, part, kind) for name, part in zip(names, parts, strict=True))


def _shard(path: Path, tensors: Mapping[str, TensorExpr], kind: TensorType) -> Shard:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = [], 0
    for name, expr in tensors.items():
        starts.append(end)
        end += kind.nbytes(expr.shape)
        header[name] = {"dtype": kind.name, "shape": expr.shape, "data_offsets": [starts[-1], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(padded(len(text), _ALIGNMENT))
    encoded = len(text).to_bytes(8, "little") + text
    placed = tuple(
        PlacedTensor(TensorInfo(name, expr.shape[::-1], kind), len(encoded) + start)
        for (name, expr), start in zip(tensors.items(), starts, strict=True)
    )
    sources = tuple(RowSource(expr, kind) for expr in tensors.values())
    return Shard(path, Layout(encoded, placed, len(encoded) + end), sources)
