"""Tensors as expressions: shape and dtype are known now, rows are read when asked.

A tensor of shape (..., R, C) is seen as a matrix of rows of C values, all leading axes flattened; a vector is
one row. Rows are NumPy arrays of float32, float16 or ml_dtypes.bfloat16, or uint8 for packed ggml types.
Operations are maps of row or column numbers on what lies below, plus a little arithmetic, so a row costs only
the bytes that it is made of and nothing is held between calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.buffers import fresh
from gguf_forge.storage.source import Source
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F16, F32, MXFP4, SCALES_AT, TensorType


class StoredRun(NamedTuple):
    """Bytes of a file."""

    source: Source
    offset: int
    nbytes: int


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
        """The type of the values in the checkpoint, whatever is computed from them."""
        return self.dtype

    @property
    def n_rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def matrix_rows(self) -> int:
        """Rows of one matrix (of one expert, say)."""
        return self.shape[-2] if len(self.shape) > 1 else 1

    @property
    def is_columnwise(self) -> bool:
        """Does each row take the reading of a whole matrix? Its rows are best taken together, then."""
        return False

    def rows(self, start: int, stop: int) -> Rows:
        """Rows start..stop as a matrix (stop - start, C)."""
        return self.take(np.arange(start, stop))

    @abstractmethod
    def take(self, rows: RowNumbers) -> Rows:
        """The rows with these numbers, in this order."""

    def stored_runs(self, start: int, stop: int) -> tuple[StoredRun, ...] | None:
        """The bytes of a range of rows where they lie in files as `rows` would give them; None if they do not."""
        return None

    @abstractmethod
    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        """Bytes that taking so many rows holds at most,
        the result included; neighbours, or rows from here and there.
        """

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as `take` gives it."""
        return self.dtype.row_bytes(self.shape[-1])

    @abstractmethod
    def sources(self) -> Iterator[Source]:
        """The files that rows are read from, perhaps more than once."""


# Scattered rows are read in one go, with what lies between, up to so many times their number.
_MOST_UNUSED = 4

# Row numbers are 8 bytes each, and following an operation takes some arrays of them.
_NUMBERS_BYTES = 256

# Of a matrix that is transposed, so much is read at a time.
_BLOCK_BYTES = 2 << 20

# Bytes that only a repacking operation understands.
RAW = TensorType("U8", -1, 1, 1)


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
        first, stop = int(rows.min()), int(rows.max()) + 1
        if stop - first == len(rows) and (rows[1:] > rows[:-1]).all():
            return self._read(first, stop)
        if stop - first <= _MOST_UNUSED * len(rows):
            return self._read(first, stop)[rows - first]
        return np.concatenate([self._read(*run) for run in contiguous_runs(rows)])

    def _read(self, start: int, stop: int) -> Rows:
        raw = self.source.read(*self._run(start, stop)[1:])
        return raw.view(self.dtype.dtype).reshape(stop - start, -1)

    def _run(self, start: int, stop: int) -> StoredRun:
        return StoredRun(self.source, self.offset + start * self.row_bytes, (stop - start) * self.row_bytes)

    def stored_runs(self, start: int, stop: int) -> tuple[StoredRun, ...]:
        return (self._run(start, stop),)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return n_rows * (_NUMBERS_BYTES + self.row_bytes * (1 + _MOST_UNUSED if scattered else 1))

    def sources(self) -> Iterator[Source]:
        yield self.source


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
        return n_rows * (_NUMBERS_BYTES + self.row_bytes)

    def sources(self) -> Iterator[Source]:
        return iter(())


@dataclass(frozen=True)
class Unary(TensorExpr):
    """An operation on one tensor. What does not change is the tensor's."""

    of: TensorExpr

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

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        # what is below, and the result that is made of it
        return self.of.working_set(n_rows, scattered=scattered) + n_rows * self.row_bytes

    def sources(self) -> Iterator[Source]:
        return self.of.sources()

    @property
    def is_columnwise(self) -> bool:
        return self.of.is_columnwise

    def source_rows(self, rows: RowNumbers) -> RowNumbers:
        """Which rows of `of` the given rows come from."""
        return rows


# Blocks whose numbers of more than a byte are their scales, as gguf-py's gguf_convert_endian.py knows them.
_SWAPPABLE_BLOCKS = ("Q4_0", "Q8_0", "Q4_K", "Q6_K", "TQ2_0", "Q1_0", "MXFP4", "NVFP4")


@dataclass(frozen=True)
class BigEndian(Unary):
    """A tensor that a big-endian file holds, in this machine's byte order."""

    def __post_init__(self) -> None:
        if self.dtype.block_elements > 1 and self.dtype.name not in _SWAPPABLE_BLOCKS:
            raise UnsupportedError(
                f"{self.dtype} blocks of big-endian files cannot be read",
                hint=f"float types can, and {', '.join(_SWAPPABLE_BLOCKS)}",
            )

    def take(self, rows: RowNumbers) -> Rows:
        stored = np.ascontiguousarray(self.of.take(rows))
        blocks = stored.view(np.uint8).reshape(-1, self.dtype.block_bytes)
        if self.dtype.block_elements == 1:
            swapped = np.ascontiguousarray(blocks[:, ::-1])
        else:
            swapped = blocks.copy()
            for at in SCALES_AT.get(self.dtype.name, ()):
                swapped[:, [at, at + 1]] = blocks[:, [at + 1, at]]
        return swapped.reshape(-1).view(stored.dtype).reshape(stored.shape)


# What NumPy calls the stored types that are no weights' usual ones.
_WIDENED = {"F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


@dataclass(frozen=True)
class AsFloat32(Unary):
    """Doubles and integers as float32, each rounded once."""

    dtype = F32

    @property
    def source_type(self) -> TensorType:
        return F32

    def take(self, rows: RowNumbers) -> Rows:
        stored = np.ascontiguousarray(self.of.take(rows))
        with np.errstate(over="ignore"):  # too large is infinite, and told when it is packed
            return stored.view(_WIDENED[self.of.dtype.name]).astype(np.float32)


@dataclass(frozen=True)
class Reshape(Unary):
    """Other leading axes over the same rows."""

    leading: tuple[int, ...]

    def __post_init__(self) -> None:
        if prod(self.leading) != self.of.n_rows:
            raise InputError(f"shape {self.of.shape} cannot be seen as {self.shape}")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (*self.leading, self.of.shape[-1])

    def stored_runs(self, start: int, stop: int) -> tuple[StoredRun, ...] | None:
        return self.of.stored_runs(start, stop)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows, scattered=scattered)


@dataclass(frozen=True)
class RowRange(Unary):
    """Rows `start` to `stop`, where they are whole matrices as such, else as one matrix."""

    start: int
    stop: int

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

    def stored_runs(self, start: int, stop: int) -> tuple[StoredRun, ...] | None:
        return self.of.stored_runs(self.start + start, self.start + stop)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows, scattered=scattered)


@dataclass(frozen=True)
class PermuteRope(Unary):
    """Axis 0 from Hugging Face's rotary order (two halves of a head) to llama.cpp's (interleaved pairs)."""

    n_head: int

    def __post_init__(self) -> None:
        if self.of.shape[0] % (2 * self.n_head):
            raise InputError(f"{self.of.shape[0]} rows are not {self.n_head} heads of an even size")

    def _order(self, index: RowNumbers) -> RowNumbers:
        half = self.of.shape[0] // self.n_head // 2
        head, within = np.divmod(index, 2 * half)
        order: RowNumbers = head * 2 * half + within % 2 * half + within // 2
        return order

    def source_rows(self, rows: RowNumbers) -> RowNumbers:
        return rows if len(self.shape) == 1 else self._order(rows)

    def take(self, rows: RowNumbers) -> Rows:
        if len(self.shape) == 1:
            return self.of.take(rows)[:, self._order(np.arange(self.shape[0]))]
        return super().take(rows)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        if len(self.shape) == 1:
            return self.of.working_set(n_rows) + n_rows * (self.row_bytes + self.shape[0] * _NUMBERS_BYTES)
        return self.of.working_set(n_rows, scattered=True)


@dataclass(frozen=True)
class Slice(Unary):
    """Every `step`-th index from `start` to `stop` along one of the last two axes (-1 or -2)."""

    axis: int
    start: int
    stop: int
    step: int = 1

    def __post_init__(self) -> None:
        if len(self.of.shape) < -self.axis or self.stop > self.of.shape[self.axis]:
            raise InputError(f"shape {self.of.shape} has no part {self.start}..{self.stop} of axis {self.axis}")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        shape = list(self.of.shape)
        shape[self.axis] = len(range(self.start, self.stop, self.step))
        return tuple(shape)

    def source_rows(self, rows: RowNumbers) -> RowNumbers:
        if self.axis == -1:
            return rows
        matrix, row = np.divmod(rows, self.shape[-2])
        below: RowNumbers = matrix * self.of.shape[-2] + self.start + row * self.step
        return below

    def take(self, rows: RowNumbers) -> Rows:
        taken = super().take(rows)
        return np.ascontiguousarray(taken[:, self.start : self.stop : self.step]) if self.axis == -1 else taken

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        if self.axis == -1:
            return self.of.working_set(n_rows, scattered=scattered) + n_rows * self.row_bytes
        # where one matrix ends and the next begins, rows are left out, too
        return self.of.working_set(n_rows, scattered=True)


@dataclass(frozen=True)
class Transpose(Unary):
    """The last two axes swapped: a row is a column below."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        *leading, a, b = self.of.shape
        return (*leading, b, a)

    @property
    def is_columnwise(self) -> bool:
        return True

    @property
    def _block_rows(self) -> int:
        """How many rows below are read at a time."""
        return min(self.of.shape[-2], max(1, _BLOCK_BYTES // self.of.row_bytes))

    def take(self, rows: RowNumbers) -> Rows:
        below, step = self.of.shape[-2], self._block_rows
        taken = fresh(len(rows) * self.row_bytes).view(self.dtype.dtype).reshape(len(rows), below)
        done = 0
        for matrix, columns in _by_matrix(rows, self.shape[-2]):
            tile = taken[done : done + len(columns)]
            for start in range(0, below, step):
                stop = min(start + step, below)
                tile[:, start:stop] = self.of.rows(matrix * below + start, matrix * below + stop)[:, columns].T
            done += len(columns)
        return taken

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        block = self._block_rows * self.of.row_bytes
        return n_rows * (_NUMBERS_BYTES + self.row_bytes) + self.of.working_set(self._block_rows) + block


@dataclass(frozen=True)
class Add(Unary):
    """Plus a number, in float16 for float16 and in float32 for all else, as the reference computes it."""

    number: float

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return F16 if self.of.dtype == F16 else F32

    def take(self, rows: RowNumbers) -> Rows:
        kind = np.float16 if self.dtype == F16 else np.float32
        total: Rows = self.of.take(rows).astype(kind)
        total += kind(self.number)
        return total


@dataclass(frozen=True)
class Stack(TensorExpr):
    """Equal tensors, one behind the other along a new first axis."""

    parts: tuple[TensorExpr, ...]

    def __post_init__(self) -> None:
        kinds = {(part.shape, part.dtype.name) for part in self.parts}
        if len(kinds) != 1:
            raise InputError(f"the {len(self.parts)} tensors to stack differ: {sorted(kinds)}")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (len(self.parts), *self.parts[0].shape)

    @property
    def is_columnwise(self) -> bool:
        return self.parts[0].is_columnwise

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return self.parts[0].dtype

    @property
    def source_type(self) -> TensorType:
        return self.parts[0].source_type

    def take(self, rows: RowNumbers) -> Rows:
        taken = [self.parts[part].take(inner) for part, inner in _by_matrix(rows, self.parts[0].n_rows)]
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    def stored_runs(self, start: int, stop: int) -> tuple[StoredRun, ...] | None:
        height = self.parts[0].n_rows
        found: list[StoredRun] = []
        for part in range(start // height, -(-stop // height)):
            runs = self.parts[part].stored_runs(max(start - part * height, 0), min(stop - part * height, height))
            if runs is None:
                return None
            found.extend(runs)
        return tuple(found)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.parts[0].working_set(n_rows, scattered=scattered) + n_rows * self.row_bytes

    def sources(self) -> Iterator[Source]:
        for part in self.parts:
            yield from part.sources()


@dataclass(frozen=True)
class MergeLastAxes(Unary):
    """(..., R, A, B) seen as (..., R, A * B): as many rows below make one row."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        *leading, a, b = self.of.shape
        return (*leading, a * b)

    def source_rows(self, rows: RowNumbers) -> RowNumbers:
        per_row = self.of.shape[-2]
        return (rows[:, None] * per_row + np.arange(per_row)).reshape(-1)

    def take(self, rows: RowNumbers) -> Rows:
        return super().take(rows).reshape(len(rows), self.shape[-1])

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows * self.of.shape[-2], scattered=scattered)


@dataclass(frozen=True)
class RepackMxfp4(TensorExpr):
    """OpenAI's MXFP4 (16 bytes a block (..., R, C / 2) and its scale (..., R, C / 32)) as ggml's blocks.

    Only bits move: a source byte holds elements 2k and 2k+1, a ggml byte holds elements k and k+16, low nibble
    first; the E8M0 scale goes before its 16 bytes. Source: `block_mxfp4` in ggml-common.h.
    """

    blocks: TensorExpr
    scales: TensorExpr
    dtype: TensorType = MXFP4

    def __post_init__(self) -> None:
        if self.blocks.shape != (*self.scales.shape[:-1], self.scales.shape[-1] * 16):
            raise InputError(f"MXFP4 blocks {self.blocks.shape} do not fit scales {self.scales.shape}")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (*self.scales.shape[:-1], self.scales.shape[-1] * 32)

    def take(self, rows: RowNumbers) -> Rows:
        source = self.blocks.take(rows).reshape(-1, 16)
        low, high = source & 0x0F, source >> 4
        packed = np.empty((len(source), 17), np.uint8)
        packed[:, 0] = self.scales.take(rows).reshape(-1)
        packed[:, 1::2] = low[:, :8] | low[:, 8:] << 4
        packed[:, 2::2] = high[:, :8] | high[:, 8:] << 4
        return packed.reshape(len(rows), -1)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        stored = self.blocks.working_set(n_rows, scattered=scattered)
        # both nibbles of each byte, the blocks, and what one assignment computes
        return stored + self.scales.working_set(n_rows, scattered=scattered) + 4 * n_rows * self.row_bytes

    def sources(self) -> Iterator[Source]:
        yield from self.blocks.sources()
        yield from self.scales.sources()


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


def _by_matrix(rows: RowNumbers, matrix_rows: int) -> Iterator[tuple[int, RowNumbers]]:
    """Splits row numbers where the matrix they lie in changes: (matrix, row numbers within it)."""
    matrix, within = np.divmod(rows, matrix_rows)
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(matrix)) + 1):
        yield int(matrix[part[0]]), within[part]
