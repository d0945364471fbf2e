"""Weights of quantized checkpoints, dequantized row by row in float32 as the reference does it.

Every formula is a sequence of float32 operations, each rounded once, in the order in which its text names them. So the
results are the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.kernels.binding import scale_codes
from gguf_forge.storage.buffers import fresh
from gguf_forge.tensors.codes import Codes, Gathered, Lookup
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr, Unary
from gguf_forge.types.rows import FloatRows, RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

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
        scheme: The name of the scheme of the checkpoint.
        kind: The codes and their groups in the words of the scheme, such as "NF4, g64"; empty if the fields above tell.
    """

    codes: TensorExpr
    scales: TensorExpr
    row_block: int
    column_block: int
    zeros: TensorExpr | int = 0
    shifts: TensorExpr | None = None
    scheme: str = ""
    kind: str = ""
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

    @property
    def rows_together(self) -> int:
        return self.codes.rows_together

    def reused(self) -> Iterator[TensorExpr]:
        yield from (each for each in (self.scales, self.zeros, self.shifts) if isinstance(each, TensorExpr))

    def take(self, rows: RowNumbers) -> Rows:
        return next(self.in_pieces(rows, len(rows)))

    def in_pieces(self, rows: RowNumbers, n_rows: int) -> Iterator[Rows]:
        below, at = self.scale_rows(rows)
        codes, levels, values = self._coded(rows)
        if isinstance(self.zeros, int) and self.zeros:
            levels, values = (each if each is None else each - np.float32(self.zeros) for each in (levels, values))
        runs, groups_of = self._runs()
        scales = self._numbers(groups_of(self.scales), below, self.scales)
        zeros, shifts = (
            self._numbers(groups_of(numbers), below, numbers) if isinstance(numbers, TensorExpr) else None
            for numbers in (self.zeros, self.shifts)
        )
        step = n_rows if self.is_columnwise else len(rows)  # only columns are unpacked for many rows at once
        for start in range(0, len(rows), step):
            piece = slice(start, start + step)
            if codes is not None:
                some, scaled = codes[piece], fresh(len(at[piece]) * self.row_bytes).view(np.float32)
            elif values is not None:
                some, scaled = None, values[piece]
            scaled = scaled.reshape(-1, self.shape[-1])
            scale_codes(some, levels, (scales, zeros, shifts), at[piece], runs, scaled)
            yield scaled

    def _coded(self, rows: RowNumbers) -> tuple[Rows | None, FloatRows | None, FloatRows | None]:
        """Rows of codes and the number that each code means, or else the numbers themselves."""
        lookup = self.codes if isinstance(self.codes, Lookup) and self.codes.codes.dtype.row_bytes(1) == 1 else None
        taken = np.ascontiguousarray((self.codes if lookup is None else lookup.codes).take(rows))
        if taken.itemsize == 1:
            return taken, _levels(taken.dtype) if lookup is None else lookup.table(taken)[:256], None
        return None, None, taken.astype(np.float32)

    def _runs(self) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], Callable[[TensorExpr], TensorExpr]]:
        """The columns in runs that share a scale (first columns and groups), and how to find the numbers of groups."""
        numbers = [each for each in (self.scales, self.zeros, self.shifts) if isinstance(each, TensorExpr)]
        index = self.scales.index if isinstance(self.scales, Gathered) else None
        if self.column_block == 1 and all(isinstance(each, Gathered) and each.index is index for each in numbers):
            columns = cast(Gathered, self.scales).columns
            starts = np.flatnonzero(np.diff(columns, prepend=-1))
            return (starts, columns[starts]), lambda gathered: cast(Gathered, gathered).of
        starts = np.arange(0, self.shape[-1], self.column_block)
        return (starts, np.arange(len(starts))), lambda plain: plain

    def scale_rows(self, rows: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
        """The rows of scales that rows of codes need, each once, and for each row of codes its place among them."""
        matrix, within = np.divmod(rows, self.codes.matrix_rows)
        below, at = np.unique(matrix * self.scales.matrix_rows + within // self.row_block, return_inverse=True)
        return below, at

    def _numbers(self, numbers: TensorExpr, rows: RowNumbers, of: TensorExpr) -> FloatRows:
        """One number for each block of columns, of the scales, zero points or shifts `of`."""
        # A zero scale of a block or row is legitimate: bitsandbytes, quanto and DeepSeek's FP8 write it for a block of
        # zeros, and a float16 scale of tiny weights may underflow. Only the one scale of a tensor must not be zero.
        stored = numbers.take(rows)
        if of is self.zeros and stored.dtype.kind in "iu":
            self._check_zero_points(stored)
        each: FloatRows = stored.astype(np.float32)
        if not np.isfinite(each).all():
            raise InputError("a scale or zero point is infinite or not a number", hint=_INTACT)
        if of is self.scales and each.size == 1 == numbers.n_rows and not each.all():
            raise InputError("the scale of the whole tensor is zero, or infinite where it divides", hint=_INTACT)
        return each

    def _check_zero_points(self, zeros: Rows) -> None:
        """A zero point is the code of zero, so it must be a number that a code can be."""
        kind = self.codes.dtype.dtype
        if kind.kind in "iu" and (zeros.min() < np.iinfo(kind).min or zeros.max() > np.iinfo(kind).max):
            raise InputError(
                f"zero points from {zeros.min()} to {zeros.max()} do not fit codes of {kind}", hint=_INTACT
            )

    @property
    def stored_as(self) -> str:
        """How the checkpoint stores the values, in a few words."""
        kind = self.kind or f"{_codes_in_words(self.codes)}, {self._groups_in_words}"
        known = re.split("[ ,]", kind)[0] in self.scheme.split()  # the scheme FP8 has FP8 codes
        return kind if known or not self.scheme else f"{self.scheme} {kind}"

    @property
    def _groups_in_words(self) -> str:
        n_columns, n_groups = self.shape[-1], self.scales.shape[-1]
        if isinstance(self.scales, Gathered):
            n_groups = self.scales.of.shape[-1]
            return f"g{-(-n_columns // n_groups)}" if n_groups > 1 else "per row"
        if n_groups > 1:
            return f"g{self.column_block}" if self.row_block == 1 else f"block {self.row_block}x{self.column_block}"
        return "per row" if self.row_block == 1 else "per tensor" if self.scales.n_rows == 1 else f"g{self.row_block}"

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        codes, *numbers = self.children()
        below = codes.working_set(n_rows, scattered=scattered)
        below += sum(each.working_set(min(n_rows, each.n_rows), scattered=True) for each in numbers)
        runs = 24 * -(-self.shape[-1] // self.column_block)
        values = n_rows * F32.row_bytes(self.shape[-1])
        return below + runs + 2 * values + n_rows * NUMBERS_BYTES

    @property
    def words(self) -> str:
        stored = "" if self.codes.words else f"{self.codes.dtype} "
        less = "less zero points, " if self.zeros else ""
        plus = ", plus biases" if self.shifts is not None else ""
        return f"{stored}{less}times scales{plus}"


@lru_cache
def _levels(kind: np.dtype[Any]) -> FloatRows:
    """What each byte means as a number of a type of one byte."""
    levels: FloatRows = np.arange(256, dtype=np.uint8).view(kind).astype(np.float32)
    return levels


def _codes_in_words(codes: TensorExpr) -> str:
    """The kind of codes: their bits, or the name of their float type."""
    if isinstance(codes, Codes):
        return f"{codes.bits} bit"
    below = next(codes.children(), None)
    if below is not None:
        return _codes_in_words(below)
    name = codes.dtype.name
    return {"F8_E4M3": "FP8", "F8_E5M2": "FP8 E5M2", "I8": "8 bit", "U8": "8 bit"}.get(name, name)


def in_scheme(expr: TensorExpr, scheme: str) -> TensorExpr:
    """A tensor whose codes know the name of their scheme."""
    if isinstance(expr, Scaled):
        return replace(expr, scheme=scheme)
    return replace(expr, of=in_scheme(expr.of, scheme)) if isinstance(expr, Unary) else expr


def stored_as(expr: TensorExpr) -> str:
    """How the checkpoint stores a tensor: the element type, or the scheme of its codes in a few words.

    Example:
        >>> from gguf_forge.tensors.stored import Constant
        >>> from gguf_forge.types.element_type import ELEMENT_TYPES
        >>> codes = Constant(np.zeros((2, 64), np.uint8), ELEMENT_TYPES["U8"])
        >>> stored_as(Scaled(codes, Constant(np.ones((2, 2), np.float32)), 1, 32, scheme="quanto"))
        'quanto 8 bit, g32'
    """
    found = next(_scaled_in(expr), None)
    return expr.source_type.name if found is None else found.stored_as


def _scaled_in(expr: TensorExpr) -> Iterator[Scaled]:
    if isinstance(expr, Scaled):
        yield expr
    else:
        for child in expr.children():
            yield from _scaled_in(child)


def is_of_fp8(expr: TensorExpr) -> bool:
    """Whether a tensor is made of 8-bit floats with scales. For stacked tensors, the last one decides."""
    if isinstance(expr, Scaled):
        return str(expr.codes.dtype).startswith("F8_")
    parts = tuple(expr.children())
    return bool(parts) and is_of_fp8(parts[-1])
