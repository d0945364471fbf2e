"""Operations that only move values: other shapes, orders and parts of a tensor.

An axis is counted from the end: -1 is the axis of columns, and an index along any other axis stands for a group of rows
at equal distances. So each operation, except those on columns, is a map of row numbers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Literal

import numpy as np

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.source import ByteRange
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr, Unary, by_matrix
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import TensorType

# Pieces of matrices of at least so many bytes are read one by one; smaller ones with what lies between them.
_LEAST_RUN = 256 << 10


@dataclass(frozen=True)
class Reshape(Unary):
    """The same values in the same order under another shape.

    Rows may become longer or shorter, where one length is a multiple of the other. Packed rows keep their length.
    """

    to: tuple[int, ...]

    def __post_init__(self) -> None:
        below, above = self.of.shape[-1], self.to[-1] if self.to else 0
        if prod(self.to) != prod(self.of.shape) or not above or (below % above and above % below):
            raise InputError(f"shape {self.of.shape} cannot be seen as {self.to}")
        if below != above and _is_packed(self.of):
            raise InputError(f"rows of {self.of.dtype} blocks cannot be cut or joined")

    @property
    def acts_on(self) -> Literal["rows"] | None:  # type: ignore[override]
        return "rows" if self.to[-1] == self.of.shape[-1] else None

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.to

    @property
    def _joined(self) -> int:
        """How many rows of the operand make one row."""
        return max(1, self.to[-1] // self.of.shape[-1])

    @property
    def _cut(self) -> int:
        """How many rows one row of the operand is cut into."""
        return max(1, self.of.shape[-1] // self.to[-1])

    def take(self, rows: RowNumbers) -> Rows:
        if self._cut > 1:
            below, at = np.unique(rows // self._cut, return_inverse=True)
            pieces = self.of.take(below).reshape(len(below) * self._cut, self.to[-1])
            taken: Rows = pieces[at * self._cut + rows % self._cut]
            return taken
        if self._joined > 1:
            below = (rows[:, None] * self._joined + np.arange(self._joined)).reshape(-1)
            return self.of.take(below).reshape(len(rows), self.to[-1])
        return self.of.take(rows)

    def stored_runs(self, start: int, stop: int) -> tuple[ByteRange, ...] | None:
        if start % self._cut or stop % self._cut:
            return None
        return self.of.stored_runs(start * self._joined // self._cut, stop * self._joined // self._cut)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        if self._cut > 1:
            below = n_rows if scattered else n_rows // self._cut + 2
            held = self.of.working_set(below, scattered=scattered) + below * self.of.row_bytes
            return held + n_rows * (self.row_bytes + NUMBERS_BYTES)
        return (
            self.of.working_set(n_rows * self._joined, scattered=scattered)
            + (self._joined > 1) * n_rows * self.row_bytes
        )

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return reshaped(value, self.of.shape)

    @property
    def words(self) -> str:
        return ""


def length(x: TensorExpr, axis: int) -> int:
    """How long an axis is. Raises InputError if the tensor has too few axes."""
    if not -len(x.shape) <= axis < len(x.shape):
        raise InputError(f"has the shape {x.shape}, which has no axis {axis}")
    return x.shape[axis]


def reshaped(x: TensorExpr, to: tuple[int, ...]) -> TensorExpr:
    """`x` in another shape with the same number of values. If neither row length divides the other, it is reshaped
    twice, by way of shorter rows.

    Example:
        >>> from gguf_forge.tensors.stored import StandIn
        >>> reshaped(StandIn("w", (6, 4)), (4, 6)).shape
        (4, 6)
    """
    if to == x.shape:
        return x
    if to and to[-1] and x.shape[-1] % to[-1] and to[-1] % x.shape[-1]:
        step = gcd(x.shape[-1], to[-1])
        x = Reshape(x, (prod(x.shape) // step, step))
    return Reshape(x, to)


def squeezed(x: TensorExpr) -> TensorExpr:
    """`x` without its axes of length 1."""
    return reshaped(x, tuple(size for size in x.shape if size != 1) or (1,))


def _is_packed(x: TensorExpr) -> bool:
    return isinstance(x.dtype, TensorType) and x.dtype.block_elements > 1


@dataclass(frozen=True)
class RowRange(Unary):
    """Rows `start` to `stop`. The result keeps the shape of whole matrices if it can, otherwise it is one matrix."""

    start: int
    stop: int
    acts_on = "rows"

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop <= self.of.n_rows:
            raise InputError(f"shape {self.of.shape} has no rows {self.start}..{self.stop}")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        n_rows, matrix = self.stop - self.start, self.of.matrix_rows
        if self.start % matrix or self.stop % matrix:
            return n_rows, self.of.shape[-1]
        return n_rows // matrix, matrix, self.of.shape[-1]

    def source_rows(self, rows: RowNumbers) -> RowNumbers:
        return rows + self.start

    def stored_runs(self, start: int, stop: int) -> tuple[ByteRange, ...] | None:
        return self.of.stored_runs(self.start + start, self.start + stop)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows, scattered=scattered)


class AlongAxis(Unary):
    """An operation on the indices of one axis, which is counted from the end."""

    axis: int

    @property
    def acts_on(self) -> Literal["rows", "columns"]:  # type: ignore[override]
        return "columns" if self.axis == -1 else "rows"

    @property
    def size_below(self) -> int:
        return self.of.shape[self.axis]

    @property
    def stride(self) -> int:
        """How many rows one index of the axis stands for."""
        return prod(self.of.shape[self.axis + 1 : -1])

    @abstractmethod
    def index_below(self, index: RowNumbers) -> RowNumbers:
        """Maps indices along the axis of the result to the indices of `of` that they come from."""

    def source_rows(self, rows: RowNumbers) -> RowNumbers:
        if self.axis == -1:
            return rows
        group, within = np.divmod(rows, self.stride)
        outer, index = np.divmod(group, self.shape[self.axis])
        below: RowNumbers = (outer * self.size_below + self.index_below(index)) * self.stride + within
        return below

    def take(self, rows: RowNumbers) -> Rows:
        taken = super().take(rows)
        if self.axis != -1:
            return taken
        return np.ascontiguousarray(taken[:, self.index_below(np.arange(self.shape[-1]))])


@dataclass(frozen=True)
class Reorder(AlongAxis):
    """An axis seen as several axes of the lengths `parts`, which are put into another order.

    Index (i, j, k) of parts (A, B, C) goes where `order` says: with order (0, 2, 1) to (i, k, j).

    Attributes:
        said: What the operation does, in words for people.
        left_out: Words for a tensor made without it.
    """

    axis: int
    parts: tuple[int, ...]
    order: tuple[int, ...]
    said: str = "reordered"
    left_out: str | None = None

    def __post_init__(self) -> None:
        if len(self.of.shape) < -self.axis or prod(self.parts) != self.size_below:
            raise InputError(f"axis {self.axis} of shape {self.of.shape} is not {' x '.join(map(str, self.parts))}")
        if self.axis == -1 and self._stays_together % self._together:
            raise UnsupportedError(f"columns of {self.of.dtype} blocks move {self._stays_together} at a time")

    @property
    def _stays_together(self) -> int:
        """How many indices always stay next to each other in the same order."""
        kept = 0
        while kept < len(self.order) and self.order[-1 - kept] == len(self.order) - 1 - kept:
            kept += 1
        return prod(self.parts[len(self.parts) - kept :])

    @property
    def _together(self) -> int:
        """How many columns one block has."""
        return self.of.dtype.block_elements if isinstance(self.of.dtype, TensorType) else 1

    def take(self, rows: RowNumbers) -> Rows:
        if self._together == 1 or self.axis != -1:
            return super().take(rows)
        taken = self.of.take(rows)
        blocks = taken.reshape(len(rows), self.size_below // self._together, -1)
        order = self.index_below(np.arange(0, self.size_below, self._together)) // self._together
        return np.ascontiguousarray(blocks[:, order]).reshape(taken.shape)

    def index_below(self, index: RowNumbers) -> RowNumbers:
        places = np.unravel_index(index, tuple(self.parts[axis] for axis in self.order))
        below: RowNumbers = np.zeros_like(index)
        for axis, place in zip(self.order, places, strict=True):
            below += place * prod(self.parts[axis + 1 :])
        return below

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        if self.axis == -1:
            numbers = self.size_below * NUMBERS_BYTES
            return self.of.working_set(n_rows, scattered=scattered) + 2 * n_rows * self.row_bytes + numbers
        return self.of.working_set(n_rows, scattered=True)

    def inverse(self, value: TensorExpr) -> TensorExpr:
        parts = tuple(self.parts[axis] for axis in self.order)
        order = tuple(self.order.index(axis) for axis in range(len(self.order)))
        return replace(self, of=value, parts=parts, order=order)

    @property
    def words(self) -> str:
        return self.said

    @property
    def omission(self) -> str | None:
        return self.left_out


def permute_rope(x: TensorExpr, n_head: int) -> TensorExpr:
    """The outermost axis from Hugging Face's rotary order (two halves of a head) to llama.cpp's (interleaved pairs)."""
    size = length(x, 0)
    if n_head < 1 or size % (2 * n_head):
        raise InputError(f"{size} rows are not {n_head} heads of an even size")
    return Reorder(
        x,
        -len(x.shape),
        (n_head, 2, size // n_head // 2),
        (0, 2, 1),
        said=f"rows permuted for rotary embedding, {n_head} heads",
        left_out="without permuting the rows for rotary embedding",
    )


_ORDINALS = {2: "second", 3: "3rd"}


@dataclass(frozen=True)
class Slice(AlongAxis):
    """Every `step`-th index from `start` to `stop` along one axis."""

    axis: int
    start: int
    stop: int
    step: int = 1

    def __post_init__(self) -> None:
        if len(self.of.shape) < -self.axis or not 0 <= self.start <= self.stop <= self.of.shape[self.axis]:
            raise InputError(f"shape {self.of.shape} has no part {self.start}..{self.stop} of axis {self.axis}")
        if self.axis == -1 and _is_packed(self.of):
            raise InputError(f"rows of {self.of.dtype} blocks cannot be cut")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        shape = list(self.of.shape)
        shape[self.axis] = len(range(self.start, self.stop, self.step))
        return tuple(shape)

    def index_below(self, index: RowNumbers) -> RowNumbers:
        return self.start + index * self.step

    def take(self, rows: RowNumbers) -> Rows:
        if self.axis != -1:
            return super().take(rows)
        return np.ascontiguousarray(self.of.take(rows)[:, self.start : self.stop : self.step])

    def stored_runs(self, start: int, stop: int) -> tuple[ByteRange, ...] | None:
        height, below = self.shape[self.axis] * self.stride, self.size_below * self.stride
        is_one_run = prod(self.of.shape[: self.axis]) == 1 or height * self.row_bytes >= _LEAST_RUN
        if self.axis == -1 or self.step > 1 or not is_one_run:
            return None
        found: list[ByteRange] = []
        for outer in range(start // height, -(-stop // height)):
            first = outer * below + self.start * self.stride
            runs = self.of.stored_runs(
                first + max(start - outer * height, 0), first + min(stop - outer * height, height)
            )
            if runs is None:
                return None
            found.extend(runs)
        return tuple(found)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        if self.axis == -1:
            return self.of.working_set(n_rows, scattered=scattered) + n_rows * self.row_bytes
        # rows are also left out between one matrix and the next
        return self.of.working_set(n_rows, scattered=True)

    @property
    def words(self) -> str:
        one, several = {-1: ("column", "columns"), -2: ("row", "rows")}.get(self.axis, ("index", "indices"))
        axis = f" of axis {self.axis}" if self.axis < -2 else ""
        if self.step > 1:
            return f"every {_ORDINALS.get(self.step, f'{self.step}th')} of its {several}{axis} from {self.start}"
        which = f"{one} {self.start}" if self.stop - self.start == 1 else f"{several} {self.start} to {self.stop - 1}"
        return f"{which} of {self.of.shape[self.axis]}{axis}"


@dataclass(frozen=True)
class UsedRows(Slice):
    """A part of a tensor whose rest the model does not use. Led back, the rest is zeros."""


@dataclass(frozen=True)
class OneOfEqual(Slice):
    """One index of an axis whose indices all have the same values. Led back, it is repeated."""


@dataclass(frozen=True)
class Repeat(AlongAxis):
    """Every index along one axis repeated `times` times in a row, as with torch's `repeat_interleave`."""

    axis: int
    times: int

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        shape = list(self.of.shape)
        shape[self.axis] *= self.times
        return tuple(shape)

    def index_below(self, index: RowNumbers) -> RowNumbers:
        return index // self.times

    def source_rows(self, rows: RowNumbers) -> RowNumbers:
        return super().source_rows(rows)

    def reused(self) -> Iterator[TensorExpr]:
        yield self.of

    def take(self, rows: RowNumbers) -> Rows:
        if self.axis == -1:
            return super().take(rows)
        below, at = np.unique(self.source_rows(rows), return_inverse=True)
        return self.of.take(below)[at]

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows, scattered=True) + 2 * n_rows * (self.row_bytes + NUMBERS_BYTES)

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Slice(value, self.axis, 0, value.shape[self.axis], self.times)

    @property
    def words(self) -> str:
        return f"each index of axis {self.axis} {self.times} times"


@dataclass(frozen=True)
class Transpose(Unary):
    """The last two axes swapped: a row is a column of the operand. `transposed` makes one where it is needed."""

    def __post_init__(self) -> None:
        if len(self.of.shape) < 2:
            raise InputError(f"shape {self.of.shape} has no two axes to swap")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        *leading, a, b = self.of.shape
        return (*leading, b, a)

    @property
    def rows_together(self) -> int:
        return -(-self.matrix_rows // self.of.column_passes)

    def reused(self) -> Iterator[TensorExpr]:
        yield self.of

    def take(self, rows: RowNumbers) -> Rows:
        if _is_packed(self.of):
            raise UnsupportedError(f"blocks of {self.of.dtype} cannot be transposed")
        taken = [self.of.take_columns(*columns) for columns in by_matrix(rows, self.matrix_rows)]
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        # The columns of several matrices are joined.
        joined = n_rows * self.row_bytes if n_rows > self.matrix_rows or self.n_rows > self.matrix_rows else 0
        return self.of.columns_working_set(n_rows) + joined

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return transposed(value)

    @property
    def words(self) -> str:
        return "transposed"


def transposed(x: TensorExpr) -> TensorExpr:
    """The last two axes swapped. Swapping twice gives the tensor itself, which also works for packed rows."""
    return x.of if isinstance(x, Transpose) else Transpose(x)


def halves(x: TensorExpr, axis: int) -> Iterator[Slice]:
    """The two halves of an axis, which must have an even length."""
    size = length(x, axis)
    if size % 2:
        raise InputError(f"{size} {'columns' if axis == -1 else 'rows'} have no two halves")
    yield Slice(x, axis, 0, size // 2)
    yield Slice(x, axis, size // 2, size)
