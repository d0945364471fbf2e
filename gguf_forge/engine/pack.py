"""Rows of a source as rows of a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gguf_forge.engine.tasks import RowSource
from gguf_forge.expr import Rows
from gguf_forge.kernels import dequantize_rows, quantize_rows
from gguf_forge.tensor_types import F32, TensorType


def pack(
    rows: Rows,
    source: RowSource,
    target: TensorType,
    *,
    weights: NDArray[np.float32] | None = None,
    backend: str | None = None,
) -> Rows:
    """Rows of `source` as rows of `target`: rounded to the base type first, as the reference's two steps do.

    Packed types (a quantized file, repacked MXFP4) pass as they are, or are unpacked to float32 first.
    """
    kind, base = source.expr.dtype, source.base
    if not kind.is_float and kind != target:
        rows, kind, base = _unpacked(rows, kind, backend), F32, F32
    for step in (base, target):
        if step != kind:
            out = np.empty((rows.shape[0], step.row_bytes(rows.shape[1])), np.uint8)
            quantize_rows(
                np.ascontiguousarray(rows), step, out, weights=None if step.is_float else weights, backend=backend
            )
            rows, kind = out.view(step.dtype), step
    return np.ascontiguousarray(rows)


def _unpacked(rows: Rows, kind: TensorType, backend: str | None) -> Rows:
    values = np.empty((rows.shape[0], rows.shape[1] // kind.block_bytes * kind.block_elements), np.float32)
    dequantize_rows(np.ascontiguousarray(rows), kind, values, backend=backend)
    return values
