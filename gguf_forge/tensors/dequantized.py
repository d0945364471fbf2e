"""Weights of quantized checkpoints, dequantized row by row in float32 as the reference does it.

Every formula is a sequence of float32 operations, each rounded once, in the order in which its text names them. So the
results are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from gguf_forge.errors import InputError
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

# Rows that share their scales are changed together if there are at least this many.
_FEW = 8
_INTACT = "get an intact copy of the model"


@dataclass(frozen=True)
class Scaled(TensorExpr):
    """Codes minus their zero points, times their scales, plus their shifts.

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
        if not self.codes.shape or min(self.row_block, self.column_block) < 1:
            raise InputError(f"scales of shape {self.scales.shape} do not fit codes of shape {self.codes.shape}")
        *leading, n_rows, n_columns = (1, *self.codes.shape)[-max(2, len(self.codes.shape)) :]
        wanted = (*leading, -(-n_rows // self.row_block), -(-n_columns // self.column_block))
        for what, numbers in (("scales", self.scales), ("zero points", self.zeros), ("biases", self.shifts)):
            if isinstance(numbers, TensorExpr) and numbers.shape != wanted:
                raise InputError(f"{what} of shape {numbers.shape} do not fit: {wanted} are expected")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.codes.shape

    def take(self, rows: RowNumbers) -> Rows:
        below, at = self.scale_rows(rows)
        values = _as_float32(self.codes.take(rows))
        if isinstance(self.zeros, TensorExpr):
            self._apply(np.subtract, values, self._numbers(self.zeros, below), at)
        elif self.zeros:
            values -= np.float32(self.zeros)
        self._apply(np.multiply, values, self._numbers(self.scales, below), at)
        if self.shifts is not None:
            self._apply(np.add, values, self._numbers(self.shifts, below), at)
        return values

    def scale_rows(self, rows: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
        """The rows of scales that rows of codes need, each once, and for each row of codes its place among them."""
        matrix, within = np.divmod(rows, self.codes.matrix_rows)
        below, at = np.unique(matrix * self.scales.matrix_rows + within // self.row_block, return_inverse=True)
        return below, at

    def _numbers(self, numbers: TensorExpr, rows: RowNumbers) -> Rows:
        """One number for each block of columns."""
        # A zero scale of a block or row is legitimate: bitsandbytes, quanto and DeepSeek's FP8 write it for a block of
        # zeros, and a float16 scale of tiny weights may underflow. Only the one scale of a tensor must not be zero.
        stored = numbers.take(rows)
        if numbers is self.zeros and stored.dtype.kind in "iu":
            self._check_zero_points(stored)
        each: Rows = stored.astype(np.float32)
        if not np.isfinite(each).all():
            raise InputError("a scale or zero point is infinite or not a number", hint=_INTACT)
        if numbers is self.scales and each.size == 1 == numbers.n_rows and not each.all():
            raise InputError("the scale of the whole tensor is zero", hint=_INTACT)
        return each

    def _check_zero_points(self, zeros: Rows) -> None:
        """A zero point is the code of zero, so it must be a number that a code can be."""
        kind = self.codes.dtype.dtype
        if kind.kind in "iu" and (zeros.min() < np.iinfo(kind).min or zeros.max() > np.iinfo(kind).max):
            raise InputError(
                f"zero points from {zeros.min()} to {zeros.max()} do not fit codes of {kind}", hint=_INTACT
            )

    def _apply(self, operation: np.ufunc, values: Rows, each: Rows, at: RowNumbers) -> None:
        """Changes each block by its own number: row i by the numbers `at[i]`, those that share them together."""
        starts = np.flatnonzero(np.diff(at, prepend=-1))
        if len(starts) * _FEW > len(at):
            self._apply_to_rows(operation, values, each[at])
            return
        for start, stop in pairwise((*starts.tolist(), len(at))):
            self._apply_to_rows(operation, values[start:stop], each[at[start] : at[start] + 1])

    def _apply_to_rows(self, operation: np.ufunc, values: Rows, each: Rows) -> None:
        """Changes each block of columns by its own number; each row has its own, or all share them."""
        if self.column_block > 1 and self.shape[-1] % self.column_block == 0:
            values = values.reshape(len(values), each.shape[1], self.column_block)
            each = each[:, :, None]
        elif self.column_block > 1:
            each = each.repeat(self.column_block, axis=1)[:, : self.shape[-1]]
        operation(values, each, out=values)

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
        stored = "" if self.codes.words else f"{self.codes.dtype} "
        less = "less zero points, " if self.zeros else ""
        plus = ", plus biases" if self.shifts is not None else ""
        return f"{stored}{less}times scales{plus}"


@lru_cache
def _levels(kind: np.dtype[Any]) -> Rows:
    """What each byte means as a number of a type of one byte."""
    levels: Rows = np.arange(256, dtype=np.uint8).view(kind).astype(np.float32)
    return levels


def _as_float32(codes: Rows) -> Rows:
    """Codes as numbers of their own, which may be changed; a table is faster than a conversion of small floats."""
    if codes.itemsize > 1 or codes.dtype.kind in "iu":
        return codes.astype(np.float32)
    return _levels(codes.dtype).take(codes.view(np.uint8))


def is_of_fp8(expr: TensorExpr) -> bool:
    """Whether a tensor is made of 8-bit floats with scales. For stacked tensors, the last one decides."""
    if isinstance(expr, Scaled):
        return str(expr.codes.dtype).startswith("F8_")
    parts = tuple(expr.children())
    return bool(parts) and is_of_fp8(parts[-1])
