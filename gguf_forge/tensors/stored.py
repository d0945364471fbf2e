"""The tensors that expressions begin with: stored in files, computed from the config, or stand-ins without values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.buffers import fresh
from gguf_forge.storage.read_once import is_kept_for_others, read
from gguf_forge.storage.source import ByteRange, Source
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr, Unary
from gguf_forge.types.byte_order import swapped
from gguf_forge.types.element_type import ElementType
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, I32, I64, TENSOR_TYPES, TensorType

# Scattered rows are read in one call together with the rows between them, if that is at most this many times as many.
_MOST_UNUSED = 4
# Reading so many bytes takes as long as one more call of the system, which would leave them out.
_LEAST_GAP = 8 << 10
# Scattered rows of at most so many bytes are read with the rows between them.
_SHORT_ROW = 512


@dataclass(frozen=True)
class Stored(TensorExpr):
    """A tensor as a file holds it: rows of `dtype` one after the other, from byte `offset` of `source`."""

    name: str
    source: Source
    offset: int
    shape: tuple[int, ...]
    dtype: TensorType

    def rows(self, start: int, stop: int) -> Rows:
        return self._read(start, stop)

    def take(self, rows: RowNumbers) -> Rows:
        first, stop = int(rows[0]), int(rows[-1]) + 1
        if stop - first == len(rows) and (rows[1:] > rows[:-1]).all():
            return self._read(first, stop)
        first, stop = int(rows.min()), int(rows.max()) + 1
        order = np.argsort(rows, kind="stable")
        runs = self._read_together(rows[order])
        if len(runs) == 1:
            return self._read(first, stop)[rows - first]
        taken = fresh(len(rows) * self.row_bytes).view(self.dtype.dtype).reshape(len(rows), -1)
        for begin, end in runs:
            mine = order[begin:end]
            start = int(rows[mine[0]])
            taken[mine] = self._read(start, int(rows[mine[-1]]) + 1)[rows[mine] - start]
        return taken

    def _read_together(self, rows: RowNumbers) -> list[tuple[int, int]]:
        """Ascending rows in groups that are read in one call each, as (begin, end) of their places. Short gaps between
        rows are read, too; longer ones only if others need what is in them."""
        is_kept = is_kept_for_others(self.source, self._run(int(rows[0]), int(rows[0]) + 1).offset)
        step = min(_MOST_UNUSED, 1 + (_LEAST_GAP if is_kept else _SHORT_ROW) // self.row_bytes)
        borders = (0, *(np.flatnonzero(np.diff(rows) > step) + 1).tolist(), len(rows))
        return list(pairwise(borders))

    @property
    def reads_gaps(self) -> bool:
        """Whether rows between those that are asked for may be read with them, also if nobody else needs them."""
        return self.row_bytes <= _SHORT_ROW

    def _read(self, start: int, stop: int) -> Rows:
        raw = read(*self._run(start, stop))
        return raw.view(self.dtype.dtype).reshape(stop - start, -1)

    def part_of_rows(self, start: int, stop: int, columns: tuple[int, int]) -> Rows:
        """Columns `columns[0]` to `columns[1]` of rows `start` to `stop`. Where rows are long, only these are read."""
        first, last = columns
        size = self.dtype.row_bytes(1)
        if self.row_bytes - (last - first) * size < _LEAST_GAP:
            return self._read(start, stop)[:, first:last]
        offset = self.offset + start * self.row_bytes + first * size
        raw = self.source.read_pieces(offset, (last - first) * size, self.row_bytes, stop - start)
        return raw.view(self.dtype.dtype)

    def _run(self, start: int, stop: int) -> ByteRange:
        return ByteRange(self.source, self.offset + start * self.row_bytes, (stop - start) * self.row_bytes)

    def stored_runs(self, start: int, stop: int) -> tuple[ByteRange, ...]:
        return (self._run(start, stop),)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return n_rows * (NUMBERS_BYTES + self.row_bytes * (1 + _MOST_UNUSED if scattered else 1))

    def sources(self) -> Iterator[Source]:
        yield self.source

    @property
    def words(self) -> str:
        return ""


@dataclass(frozen=True)
class StoredElements(Stored):
    """Stored numbers that are not weights by themselves, such as packed codes and scales. Only the schemes of quantized
    checkpoints and `Widened` compute with them. A declaration that would write them to a file is refused."""

    dtype: ElementType  # type: ignore[assignment]


def stored_in(expr: TensorExpr) -> Iterator[Stored]:
    """The tensors of files that an expression is made of."""
    if isinstance(expr, Stored):
        yield expr
    for child in expr.children():
        yield from stored_in(child)


def as_vector(x: TensorExpr) -> TensorExpr:
    """A scalar as a vector of one value; other tensors unchanged."""
    if isinstance(x, Stored) and not x.shape:
        return replace(x, shape=(1,))
    return x if x.shape else OneValue(x, (1,))


@dataclass(frozen=True)
class OneValue(Unary):
    """One value as a scalar or as a vector, which have different shapes and the same bytes."""

    to: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.to

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return OneValue(value, self.of.shape)

    @property
    def words(self) -> str:
        return ""


@dataclass(frozen=True)
class Constant(TensorExpr):
    """Values made while planning, such as rope factors: float32, kept in memory."""

    values: NDArray[np.float32]
    dtype: TensorType = F32

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.values.shape

    def take(self, rows: RowNumbers) -> Rows:
        return self.values.reshape(self.n_rows, self.shape[-1])[rows]

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return n_rows * (NUMBERS_BYTES + self.row_bytes)

    @property
    def words(self) -> str:
        return "computed from the config"


@dataclass(frozen=True)
class Integers(TensorExpr):
    """Integers of 64 bits, kept in memory as a vector."""

    values: tuple[int, ...]
    dtype: TensorType = I64

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (len(self.values),)

    def take(self, rows: RowNumbers) -> Rows:
        return np.array([self.values], "<i8")[rows].view(np.uint8)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return n_rows * (NUMBERS_BYTES + 2 * self.row_bytes)


@dataclass(frozen=True)
class Zeros(TensorExpr):
    """A tensor of zeros. They take no memory until rows are asked for."""

    shape: tuple[int, ...]
    dtype: TensorType

    def take(self, rows: RowNumbers) -> Rows:
        return np.zeros((len(rows), self.shape[-1]), self.dtype.dtype)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return n_rows * (NUMBERS_BYTES + self.row_bytes)


@dataclass(frozen=True)
class StandIn(TensorExpr):
    """A name and a shape in place of a real checkpoint tensor. Applying a declaration to it shows what the declaration
    would do."""

    name: str
    shape: tuple[int, ...]
    dtype: TensorType = F32

    def take(self, rows: RowNumbers) -> Rows:
        raise InputError("has no values", tensor=self.name)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return 0


def _check_integers(x: TensorExpr) -> None:
    if isinstance(x, StandIn):
        return
    if not isinstance(x, StoredElements) or not np.issubdtype(x.dtype.dtype, np.integer):
        raise InputError("is not of integers")


@dataclass(frozen=True)
class AsI32(Unary):
    """Stored integers as I32, such as a table of experts."""

    dtype = I32

    def __post_init__(self) -> None:
        _check_integers(self.of)

    @property
    def source_type(self) -> TensorType:
        return I32

    def take(self, rows: RowNumbers) -> Rows:
        stored = self.of.take(rows)
        values = stored.astype(np.int32)
        if not np.array_equal(values, stored):
            raise InputError("has numbers that 32 bits do not hold")
        return values.view(np.uint8)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows, scattered=scattered) + 3 * n_rows * self.row_bytes

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return value

    @property
    def words(self) -> str:
        return "as I32"


@dataclass(frozen=True)
class PlusIndex(Unary):
    """Stored integers as I64, each plus its column number: stored distances become absolute positions."""

    dtype = I64

    def __post_init__(self) -> None:
        _check_integers(self.of)

    @property
    def source_type(self) -> TensorType:
        return I64

    def values(self, rows: RowNumbers) -> NDArray[np.int64]:
        """The sums."""
        sums: NDArray[np.int64] = self.of.take(rows).astype(np.int64) + np.arange(self.shape[-1])
        return sums

    def take(self, rows: RowNumbers) -> Rows:
        return self.values(rows).view(np.uint8)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows, scattered=scattered) + 3 * n_rows * self.row_bytes

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return MinusIndex(value)

    @property
    def words(self) -> str:
        return "plus its place"


@dataclass(frozen=True)
class MinusIndex(Unary):
    """Positions as I64, each minus its column number."""

    dtype = I64

    def take(self, rows: RowNumbers) -> Rows:
        distances = self.of.take(rows).view("<i8") - np.arange(self.shape[-1])
        return distances.view(np.uint8)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows, scattered=scattered) + 3 * n_rows * self.row_bytes

    @property
    def words(self) -> str:
        return "minus its place"


@dataclass(frozen=True)
class BigEndian(Unary):
    """A tensor that a big-endian GGUF file holds, in this machine's byte order."""

    def __post_init__(self) -> None:
        if isinstance(self.dtype, TensorType) and not self.dtype.is_swappable:
            readable = (known.name for known in TENSOR_TYPES.values() if known.is_packed and known.is_swappable)
            raise UnsupportedError(
                f"{self.dtype} blocks of big-endian files cannot be read",
                hint=f"float types can, and {', '.join(readable)}",
            )

    def take(self, rows: RowNumbers) -> Rows:
        return swapped(self.of.take(rows), self.dtype)

    @property
    def words(self) -> str:
        return "from big-endian"


@dataclass(frozen=True)
class Widened(Unary):
    """Stored doubles, integers and small floats as float32, each rounded once."""

    dtype = F32

    @property
    def source_type(self) -> TensorType:
        return F32

    def take(self, rows: RowNumbers) -> Rows:
        with np.errstate(over="ignore"):  # too large values become infinite, and are reported when packed
            return self.of.take(rows).astype(np.float32)

    @property
    def words(self) -> str:
        return f"{self.of.dtype} as float32"
