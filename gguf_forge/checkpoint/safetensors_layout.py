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
from gguf_forge.tensors.stored import as_vector
from gguf_forge.types.tensor_type import INTEGERS, TensorType

_ALIGNMENT = 8


def checkpoint_shards(
    folder: Path, tensors: Mapping[str, TensorExpr], kind: TensorType, max_size: int, *, stem: str = "model"
) -> tuple[Shard, ...]:
    """The files of a checkpoint: `model.safetensors`, or an index and several files with at most `max_size` bytes of
    tensors each, where they can be kept to.

    Args:
        folder: The folder of the files.
        tensors: Name -> rows, in the order of the files.
        kind: F32, F16 or BF16, for all tensors but those of integers, which keep their type.
        max_size: Bytes of tensors in a file.
        stem: The beginning of the files' names.
    """
    parts: list[dict[str, TensorExpr]] = [{}]
    size = 0
    for name, expr in tensors.items():
        nbytes = _stored_type(expr, kind).nbytes(expr.shape)
        if size + nbytes > max_size and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][name] = expr
        size += nbytes
    if len(parts) == 1:
        return (checkpoint_file(folder / f"{stem}.safetensors", parts[0], kind),)
    names = [f"{stem}-{number:05}-of-{len(parts):05}.safetensors" for number in range(1, len(parts) + 1)]
    index = {
        "metadata": {"total_size": sum(_stored_type(expr, kind).nbytes(expr.shape) for expr in tensors.values())},
        "weight_map": {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part},
    }
    text = json.dumps(index, indent=2).encode() + b"\n"
    # The index is first in the list, so it gets its name last. Readers begin with the index, so it must not come early.
    begin = Shard(folder / f"{stem}.safetensors.index.json", Layout(text, (), len(text)), ())
    return begin, *(checkpoint_file(folder / name, part, kind) for name, part in zip(names, parts, strict=True))


def checkpoint_file(path: Path, tensors: Mapping[str, TensorExpr], kind: TensorType) -> Shard:
    """One file of a checkpoint, whatever its size; the arguments are those of `checkpoint_shards`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = [], 0
    for name, expr in tensors.items():
        starts.append(end)
        stored = _stored_type(expr, kind)
        end += stored.nbytes(expr.shape)
        header[name] = {"dtype": stored.name, "shape": expr.shape, "data_offsets": [starts[-1], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(padded(len(text), _ALIGNMENT))
    encoded = len(text).to_bytes(8, "little") + text
    rows = {name: as_vector(expr) for name, expr in tensors.items()}
    placed = tuple(
        PlacedTensor(TensorInfo(name, expr.shape[::-1], _stored_type(expr, kind)), len(encoded) + start)
        for (name, expr), start in zip(rows.items(), starts, strict=True)
    )
    sources = tuple(RowSource(expr, kind) for expr in rows.values())
    return Shard(path, Layout(encoded, placed, len(encoded) + end), sources)


def _stored_type(expr: TensorExpr, kind: TensorType) -> TensorType:
    return expr.dtype if expr.dtype in INTEGERS else kind
