"""Rows of an expression as rows of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gguf_forge.engine.batches import Batch, Target
from gguf_forge.kernels.binding import dequantize_rows, is_finite, quantize_rows
from gguf_forge.storage.buffers import fresh
from gguf_forge.storage.profile import CONVERT, QUANTIZE, phase
from gguf_forge.types.byte_order import swapped
from gguf_forge.types.rows import Rows
from gguf_forge.types.tensor_type import TensorType

# Raises an error for rows that may not be written. It gets the rows, the same in the base type, the same packed, a
# target of them, and the number of the first one.
Check = Callable[[Rows, Rows, Rows, Target, int], None]


def pack(
    rows: Rows, batch: Batch, *, backend: str | None = None, check: Check | None = None
) -> Iterator[tuple[tuple[Target, ...], Rows]]:
    """Packs the rows of a batch for its targets. It yields the targets that get the same bytes, with these bytes.

    Values are first rounded to the base type, as in the reference's two steps, once for all targets that share it.
    Packed rows (of a quantized file, or repacked MXFP4) are passed on unchanged, or are unpacked to float32 first.
    `check` sees the rows that are not finite, before they are given out.
    """
    for _, targets in groupby(sorted(batch.targets, key=_base_id), _base_id):
        yield from _pack_rounded(rows, tuple(targets), batch.start, backend, check)


def _base_id(target: Target) -> int:
    return target.base.id


def _pack_rounded(
    rows: Rows, targets: Sequence[Target], start: int, backend: str | None, check: Check | None
) -> Iterator[tuple[tuple[Target, ...], Rows]]:
    """Packs rows for targets of the same base type. Only the rounded rows are kept from one type to the next."""
    base = targets[0].base
    at = next((target.offset_of(start) for target in targets if target.type == base), 0)
    rounded = _rounded(rows, targets[0].source.expr.dtype, base, backend, at)
    for alike in _alike(targets):
        importance, at = alike[0].source.importance_of(start), alike[0].offset_of(start)
        packed, finite = _packed(rounded, base, alike[0].type, importance, backend, at)
        if check is not None and not finite:
            with phase(CONVERT):
                for target in alike:  # files that get the same bytes may differ in what they may hold
                    check(rows, rounded, packed, target, start)
        yield alike, packed


def _alike(targets: Sequence[Target]) -> Iterator[tuple[Target, ...]]:
    """Groups of targets of one base type that get the same bytes."""
    found: dict[tuple[int, int, bool], list[Target]] = {}
    for target in targets:
        source = target.source
        found.setdefault((target.type.id, id(source.importance), source.is_swapped), []).append(target)
    return map(tuple, found.values())


def as_written(packed: Rows, target: Target) -> Rows:
    """Packed rows in the byte order of the target's file."""
    if not target.source.is_swapped:
        return packed
    with phase(CONVERT):
        return swapped(packed, target.type)


def _rounded(rows: Rows, tensor_type: TensorType, base: TensorType, backend: str | None, at: int) -> Rows:
    """Rows in the base type, in a buffer to be written at an offset."""
    if base == tensor_type:
        return rows
    if tensor_type.is_float:
        return _packed(rows, tensor_type, base, None, backend, at)[0]
    return _unpacked(rows, tensor_type, backend)


def _unpacked(rows: Rows, tensor_type: TensorType, backend: str | None) -> Rows:
    """The float32 values of packed rows."""
    with phase(CONVERT):
        n = rows.shape[1] // tensor_type.block_bytes * tensor_type.block_elements
        values = fresh(len(rows) * n * 4).view(np.float32).reshape(len(rows), n)
        dequantize_rows(np.ascontiguousarray(rows), tensor_type, values, backend=backend)
        return values


def _packed(
    rows: Rows,
    tensor_type: TensorType,
    to: TensorType,
    importance: NDArray[np.float32] | None,
    backend: str | None,
    at: int,
) -> tuple[Rows, bool]:
    """Rows of one type as rows of another one, in a buffer to be written at an offset; and whether both are finite."""
    if tensor_type.is_packed and to != tensor_type:  # DeepSeek V4's FP8 is Q8_0 in the base file
        rows = _unpacked(rows, tensor_type, backend)
    with phase(CONVERT if to.is_float or to == tensor_type else QUANTIZE):
        rows = np.ascontiguousarray(rows)
        if to == tensor_type:
            return rows, is_finite(rows, to, backend=backend)
        nbytes = to.row_bytes(rows.shape[1])
        out = fresh(len(rows) * nbytes, at=at).reshape(len(rows), nbytes)
        finite = quantize_rows(rows, to, out, importance=None if to.is_float else importance, backend=backend)
        return out.view(to.dtype), finite
