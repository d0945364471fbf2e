"""The tensors of a GGUF file as floats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gguf_forge.kernels.rows import as_float32
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, INTEGERS, NVFP4


@dataclass(frozen=True)
class UnpackedRows(Unary):
    """Rows of any type as float32."""

    dtype = F32

    def take(self, rows: RowNumbers) -> Rows:
        return as_float32(self.of.take(rows), self.of.dtype)


@dataclass(frozen=True)
class ScaledMatrices(Unary):
    """Each matrix times its own number, or all times one.

    Attributes:
        of: The matrices, of float32.
        scales: A vector of numbers, one for each matrix, or one.
    """

    scales: TensorExpr

    def take(self, rows: RowNumbers) -> Rows:
        scales = self.scales.rows(0, 1)[0].astype(np.float32)
        own = scales[rows // self.matrix_rows] if len(scales) > 1 else scales
        taken: Rows = self.of.take(rows) * own.reshape(-1, 1)
        return taken


def as_floats(tensors: Mapping[str, TensorExpr]) -> dict[str, TensorExpr]:
    """The tensors of a file, each of floats or integers.

    Blocks of NVFP4 have the scale of their matrix in a tensor of its own, with which they become one. The scale of what
    such a matrix is multiplied by, which only computing with four bits needs, is left out.
    """
    blocks = {name.removesuffix("weight") for name, expr in tensors.items() if expr.dtype == NVFP4}
    return dict(_floats(tensors, blocks))


def _floats(tensors: Mapping[str, TensorExpr], blocks: set[str]) -> Iterator[tuple[str, TensorExpr]]:
    for name, expr in tensors.items():
        stem, _, end = name.rpartition(".")
        if f"{stem}." in blocks and end in ("scale", "input_scale"):
            continue
        floats = expr if expr.dtype.is_float or expr.dtype in INTEGERS else UnpackedRows(expr)
        scales = tensors.get(f"{stem}.scale") if f"{stem}." in blocks else None
        yield name, floats if scales is None or not _fit(scales, expr) else ScaledMatrices(floats, scales)


def _fit(scales: TensorExpr, matrices: TensorExpr) -> bool:
    """Whether there is one scale for each matrix, or one for all."""
    count = matrices.n_rows // max(matrices.matrix_rows, 1)
    return scales.dtype == F32 and scales.shape in ((1,), (count,))
