"""Tensors as expressions: shape and dtype are known at once, and rows are read when they are asked for.

A tensor of shape (..., R, C) is seen as a matrix of rows of C values, with all leading axes flattened; a vector is one
row. Rows are NumPy arrays of float32, float16 or ml_dtypes.bfloat16, or uint8 for packed ggml types. An operation is
one class that defines everything about itself: its shape, which rows of its operand it needs, how much memory taking
rows holds, its words for people, and its inverse. Nothing is kept between calls.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import prod
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from gguf_forge.errors import UnsupportedError
from gguf_forge.storage.buffers import fresh
from gguf_forge.storage.source import ByteRange, Source
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

# Bytes for each row number. A row number has 8 bytes, and mapping numbers through an operation takes some arrays.
NUMBERS_BYTES = 256
# Bytes of rows that are read at a time where columns are taken.
_PASS_BYTES = 2 << 20


class TensorExpr(ABC):
    """A tensor that is not read yet.

    Attributes:
        shape: Outermost axis first, in values (also for packed types).
        dtype: The type of the rows that `take` gives.
    """

    shape: tuple[int, ...]
    dtype: TensorType

    @property
    def source_type(self) -> TensorType:
        """The type of the values in the checkpoint, before anything is computed from them."""
        return self.dtype

    @property
    def n_rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def matrix_rows(self) -> int:
        """The rows of one matrix, for example of one expert."""
        return self.shape[-2] if len(self.shape) > 1 else 1

    def in_pieces(self, rows: RowNumbers, n_rows: int) -> Iterator[Rows]:
        """The same as `take`, in order: about `n_rows` rows at a time if that saves memory, otherwise all at once."""
        yield self.take(rows)

    @property
    def is_columnwise(self) -> bool:
        """Whether reading one row means reading a whole matrix."""
        return self.rows_together > 1

    @property
    def rows_together(self) -> int:
        """How many neighbouring rows of a matrix are best taken together, because taking one reads the whole matrix."""
        return 1

    def rows(self, start: int, stop: int) -> Rows:
        """Rows start..stop as a matrix (stop - start, C)."""
        return self.take(np.arange(start, stop))

    @abstractmethod
    def take(self, rows: RowNumbers) -> Rows:
        """The rows with these numbers, in this order."""

    def part_of_rows(self, start: int, stop: int, columns: tuple[int, int]) -> Rows:
        """Columns `columns[0]` to `columns[1]` of rows `start` to `stop`."""
        return self.rows(start, stop)[:, slice(*columns)]

    @property
    def column_passes(self) -> int:
        """In how many passes the columns of a matrix are best taken. Each pass reads all of its rows."""
        return 1

    def take_columns(self, matrix: int, columns: RowNumbers) -> Rows:
        """The columns with these numbers of a matrix, in this order, each as a row."""
        n_rows, step = self.shape[-2], self._rows_of_pass
        first, last = int(columns.min()), int(columns.max()) + 1
        picked = slice(None) if (np.diff(columns) == 1).all() else columns - first
        taken = fresh(len(columns) * self.dtype.row_bytes(n_rows)).view(self.dtype.dtype).reshape(len(columns), n_rows)
        for start in range(0, n_rows, step):
            stop = min(start + step, n_rows)
            part = self.part_of_rows(matrix * n_rows + start, matrix * n_rows + stop, (first, last))
            taken[:, start:stop] = part[:, picked].T
        return taken

    def columns_working_set(self, n_columns: int) -> int:
        """The most bytes that taking `n_columns` columns holds, the result included."""
        step = self._rows_of_pass
        taken = n_columns * (NUMBERS_BYTES + self.dtype.row_bytes(self.shape[-2]))
        return taken + self.working_set(step) + step * self.row_bytes

    @property
    def _rows_of_pass(self) -> int:
        """How many rows are read at a time where columns are taken."""
        return min(self.shape[-2], max(1, _PASS_BYTES // self.row_bytes))

    def stored_runs(self, start: int, stop: int) -> tuple[ByteRange, ...] | None:
        """The places in files of a range of rows, if the files hold the very bytes that `rows` gives; None if not."""
        return None

    @abstractmethod
    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        """The most bytes that taking `n_rows` rows holds, the result included.

        Args:
            n_rows: How many rows.
            scattered: The rows are not neighbours in the tensor.
        """

    @property
    def row_bytes(self) -> int:
        """The bytes of one row as `take` gives it; a scalar is a row of one value."""
        return self.dtype.row_bytes(prod(self.shape[-1:]))

    def sources(self) -> Iterator[Source]:
        """The files that rows are read from, perhaps more than once."""
        for child in self.children():
            yield from child.sources()

    def reused(self) -> Iterator[TensorExpr]:
        """Those of its children of which one row serves several rows that need not be taken together."""
        yield from ()

    def children(self) -> Iterator[TensorExpr]:
        """The expressions that this one is made of directly."""
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            for child in value if isinstance(value, tuple) else (value,):
                if isinstance(child, TensorExpr):
                    yield child

    @property
    def words(self) -> str:
        """What the operation does, in words for people; empty if there is nothing to explain."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", type(self).__name__).lower()


@dataclass(frozen=True)
class Unary(TensorExpr):
    """An operation on one tensor. Whatever a subclass does not override is taken from that tensor.

    Attributes:
        acts_on: "rows" if each row of the result is one row below, whatever its columns are; "columns" if the operation
            moves columns alone; None if it mixes them or computes. A low-rank pair (an adapter's B and A) takes an
            operation on rows in B and one on columns in A.
    """

    of: TensorExpr
    acts_on: ClassVar[Literal["rows", "columns"] | None] = None

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.of.shape

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return self.of.dtype

    @property
    def source_type(self) -> TensorType:
        return self.of.source_type

    def take(self, rows: RowNumbers) -> Rows:
        return self.of.take(self.source_rows(rows))

    def in_pieces(self, rows: RowNumbers, n_rows: int) -> Iterator[Rows]:
        if self.acts_on == "rows":
            yield from self.of.in_pieces(self.source_rows(rows), n_rows)
        else:
            yield self.take(rows)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        # the rows of the operand, and the result that is made of them
        return self.of.working_set(n_rows, scattered=scattered) + n_rows * self.row_bytes

    @property
    def rows_together(self) -> int:
        return self.of.rows_together

    def source_rows(self, rows: RowNumbers) -> RowNumbers:
        """Which rows of `of` the given rows come from."""
        return rows

    def inverse(self, value: TensorExpr) -> TensorExpr:
        """The inverse: what `of` was if this operation gave `value`.

        Raises:
            UnsupportedError: the operation loses what it would take.
        """
        raise UnsupportedError(f"{type(self).__name__} cannot be undone")

    @property
    def omission(self) -> str | None:
        """Words for a tensor made without this operation; None if leaving it out is not a known mistake."""
        return None


class Stripe(NamedTuple):
    """The place of a piece of a tensor along an axis: every `step`-th index from `start` to `stop`."""

    start: int
    stop: int
    step: int
    expr: TensorExpr


def common_type(exprs: tuple[TensorExpr, ...]) -> TensorType:
    """The type of several tensors that become one: their own if they all have the same, otherwise float32.

    The reference widens all float types but float16 to float32 before it computes, and torch's promotion of float16
    with float32 is float32.
    """
    names = {expr.dtype.name for expr in exprs}
    return exprs[0].dtype if len(names) == 1 else F32


def converted(rows: Rows, have: TensorType, want: TensorType) -> Rows:
    """Rows of one float type as another one."""
    return rows if have == want else rows.astype(want.dtype)


def contiguous_runs(rows: RowNumbers) -> list[tuple[int, int]]:
    """The (start, stop) of each run of consecutive numbers, in order.

    Example:
        >>> contiguous_runs(np.array([3, 4, 5, 9]))
        [(3, 6), (9, 10)]
    """
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    starts = rows[np.concatenate(([0], breaks))] if len(rows) else rows
    stops = rows[np.concatenate((breaks, [len(rows)])) - 1] + 1 if len(rows) else rows
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def by_matrix(rows: RowNumbers, matrix_rows: int) -> Iterator[tuple[int, RowNumbers]]:
    """Splits row numbers where the matrix they lie in changes: (matrix, row numbers within it)."""
    matrix, within = np.divmod(rows, matrix_rows)
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(matrix)) + 1):
        yield int(matrix[part[0]]), within[part]
