"""Weights of quantized checkpoints, dequantized row by row in float32 as the reference does it.

Every formula is of float32 operations, each rounded once, in the order of its words: the results are the same wherever
they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gguf_forge.errors import InputError
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType


@dataclass(frozen=True)
class Scaled(TensorExpr):
    """Small numbers less their zero points, times their scales, plus their shifts.

    Value (m, i, j) has the scale, the zero point and the shift (m, i // row_block, j // column_block).

    Attributes:
        codes: The stored numbers, (..., R, C).
        scales: Their scales, (..., ceil(R / row_block), ceil(C / column_block)).
        row_block: How many rows share a scale.
        column_block: How many columns share a scale.
        zeros: What is subtracted first: as many as there are scales, or one for all.
        shifts: What is added last, as many as there are scales; None for nothing.
    """

    codes: TensorExpr
    scales: TensorExpr
    row_block: int
    column_block: int
    zeros: TensorExpr | int = 0
    shifts: TensorExpr | None = None
    dtype: TensorType = F32

    def __post_init__(self) -> None:
        *leading, n_rows, n_columns = (1, *self.codes.shape)[-max(2, len(self.codes.shape)) :]
        wanted = (*leading, -(-n_rows // self.row_block), -(-n_columns // self.column_block))
        for what, numbers in (("scales", self.scales), ("zero points", self.zeros), ("biases", self.shifts)):
            if isinstance(numbers, TensorExpr) and numbers.shape != wanted:
                raise InputError(f"{what} of shape {numbers.shape} do not fit: {wanted} are expected")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.codes.shape

    def take(self, rows: RowNumbers) -> Rows:
        matrix, within = np.divmod(rows, self.codes.matrix_rows)
        below, at = np.unique(matrix * self.scales.matrix_rows + within // self.row_block, return_inverse=True)
        values: Rows = self.codes.take(rows).astype(np.float32)
        if isinstance(self.zeros, TensorExpr):
            values -= self._spread(self.zeros, below)[at]
        elif self.zeros:
            values -= np.float32(self.zeros)
        values *= self._spread(self.scales, below)[at]
        if self.shifts is not None:
            values += self._spread(self.shifts, below)[at]
        return values

    def _spread(self, numbers: TensorExpr, rows: RowNumbers) -> Rows:
        """One number for every column, of rows of numbers for blocks."""
        each: Rows = numbers.take(rows).astype(np.float32)
        return each.repeat(self.column_block, axis=1)[:, : self.shape[-1]] if self.column_block > 1 else each

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        codes, *numbers = self.children()
        below = codes.working_set(n_rows, scattered=scattered)
        below += sum(each.working_set(min(n_rows, each.n_rows), scattered=True) for each in numbers)
        return below + 4 * n_rows * F32.row_bytes(self.shape[-1]) + n_rows * NUMBERS_BYTES

    def sources(self) -> Iterator[Source]:
        for expr in self.children():
            yield from expr.sources()

    @property
    def words(self) -> str:
        less = " less zero points" if self.zeros else ""
        plus = ", plus biases" if self.shifts is not None else ""
        return f"{self.codes.words or self.codes.dtype}{less} times scales{plus}"


def is_of_fp8(expr: TensorExpr) -> bool:
    """Is a tensor made of numbers of 8-bit float types with scales? Of stacked ones, the last decides."""
    if isinstance(expr, Scaled):
        return str(expr.codes.dtype).startswith("F8_")
    parts = tuple(expr.children())
    return bool(parts) and is_of_fp8(parts[-1])
