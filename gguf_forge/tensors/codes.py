"""Unpacks the codes of quantized checkpoints from the bytes and words that they are packed in.

Codes are small whole numbers without a sign. Scales and zero points (`dequantized.py`) or a table (`Lookup`) turn them
into values.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.kernels.binding import unpack_codes
from gguf_forge.storage.buffers import fresh
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr, Unary, contiguous_runs
from gguf_forge.types.element_type import ELEMENT_TYPES, ElementType
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

U8 = ELEMENT_TYPES["U8"]
# Codes are unpacked by units of this many, which are whole words whatever the bits of a code.
UNIT = 32
_COLUMN_PASSES = 4

_INTACT = "get an intact copy of the model"


class Codes(Unary):
    """Codes of up to 8 bits, given as one byte each."""

    bits: int
    dtype: ElementType = U8  # type: ignore[assignment]

    @property
    def source_type(self) -> TensorType:
        return F32

    @property
    def column_passes(self) -> int:
        # Packed codes are small beside the values that are made of them, so they may be read some times.
        return _COLUMN_PASSES

    @property
    def _mask(self) -> int:
        return (1 << self.bits) - 1

    @property
    def words(self) -> str:
        return f"{self.bits}-bit codes"


class PackedCodes(Codes):
    """Codes in streams of bits, the lowest first. A code may lie across two words."""

    def take_columns(self, matrix: int, columns: RowNumbers) -> Rows:
        units, at = _units_of(columns)
        taken = fresh(len(units) * UNIT * self.matrix_rows).reshape(-1, self.matrix_rows)
        done = 0
        for start, stop in contiguous_runs(units):
            self._unpack_columns(matrix, start, stop, taken[done : done + (stop - start) * UNIT])
            done += (stop - start) * UNIT
        return taken[at]

    def columns_working_set(self, n_columns: int) -> int:
        held = (n_columns + 2 * UNIT) * self.matrix_rows
        return 2 * held + self.of.working_set(self._words_of_pass) + n_columns * NUMBERS_BYTES

    @property
    def _words_of_pass(self) -> int:
        """How many packed rows are read at a time where columns are taken."""
        return self._rows_of_pass

    @abstractmethod
    def _unpack_columns(self, matrix: int, start: int, stop: int, out: NDArray[np.uint8]) -> None:
        """Unpacks units of columns `start` to `stop`, each column to a row of `out`."""


def _units_of(numbers: RowNumbers) -> tuple[RowNumbers, slice | RowNumbers]:
    """The units of codes that rows or columns with these numbers are in, and the places of the numbers in them."""
    first, count = int(numbers[0]), len(numbers)
    if (np.diff(numbers) == 1).all():
        return np.arange(first // UNIT, -(-(first + count) // UNIT)), slice(first % UNIT, first % UNIT + count)
    units, at = np.unique(numbers // UNIT, return_inverse=True)
    return units, at * UNIT + numbers % UNIT


@dataclass(frozen=True)
class RowCodes(PackedCodes):
    """Codes that are packed along the rows.

    Attributes:
        of: Stored integers, (..., W).
        bits: Of a code.
        width: The codes of a row; what is packed beyond them is padding.
        order: The place of each column in its group of `len(order)` codes, if columns do not follow one another. This
            length divides 32.
    """

    bits: int
    width: int
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        packed_bits = self.of.shape[-1] * 8 * self.of.dtype.row_bytes(1)
        if not 0 <= packed_bits - self.width * self.bits < 32 or (self.order and self.width % len(self.order)):
            raise InputError(
                f"packed weights of shape {self.of.shape} are not rows of {self.width} codes of {self.bits} bits"
            )

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (*self.of.shape[:-1], self.width)

    @property
    def _order(self) -> NDArray[np.uint8] | None:
        """The order of a whole unit."""
        if not self.order:
            return None
        groups = np.arange(0, UNIT, len(self.order))[:, None]
        order: NDArray[np.uint8] = (groups + np.array(self.order)).astype(np.uint8).reshape(-1)
        return order

    def take(self, rows: RowNumbers) -> Rows:
        packed = self.of.take(rows).view(np.uint8)
        codes = fresh(len(rows) * self.width).reshape(len(rows), self.width)
        unpack_codes(packed, self.bits, codes, order=self._order)
        return codes

    def _unpack_columns(self, matrix: int, start: int, stop: int, out: NDArray[np.uint8]) -> None:
        first, n_codes = matrix * self.matrix_rows, min(self.width - start * UNIT, len(out))
        # Stored numbers have one or four bytes, and units are whole words.
        each = 4 * self.bits // self.of.dtype.row_bytes(1)
        words = start * each, min(stop * each, self.of.shape[-1])
        for row in range(0, self.matrix_rows, self._rows_of_pass):
            last = min(row + self._rows_of_pass, self.matrix_rows)
            # A name for the packed rows would keep them while the next ones are read.
            unpack_codes(
                self.of.part_of_rows(first + row, first + last, words).view(np.uint8),
                self.bits,
                out[:n_codes, row:last].T,
                order=self._order,
            )

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        codes = n_rows * self.width
        return self.of.working_set(n_rows, scattered=scattered) + codes + n_rows * NUMBERS_BYTES


@dataclass(frozen=True)
class ColumnCodes(PackedCodes):
    """Codes that are packed along the columns, in words of 32 bits.

    Attributes:
        of: int32 (ceil(height * bits / 32), C).
        bits: Of a code.
        height: The rows of codes; what is packed beyond them is padding.
    """

    bits: int
    height: int

    def __post_init__(self) -> None:
        fits = len(self.of.shape) == 2 and 0 <= self.of.shape[0] * 32 - self.height * self.bits < 32
        if not fits or self.of.dtype.row_bytes(1) != 4:
            raise InputError(
                f"packed numbers of shape {self.of.shape} are not {self.height} rows of {self.bits}-bit codes"
            )

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.height, self.of.shape[1]

    def reused(self) -> Iterator[TensorExpr]:
        yield self.of

    @property
    def _words_of_pass(self) -> int:
        return max(1, self._rows_of_pass // UNIT) * self.bits

    def take(self, rows: RowNumbers) -> Rows:
        units, at = _units_of(rows)
        taken = fresh(len(units) * UNIT * self.shape[1]).reshape(-1, self.shape[1])
        done = 0
        for start, stop in contiguous_runs(units):
            n_codes = min(self.height - start * UNIT, (stop - start) * UNIT)
            words = self.of.rows(start * self.bits, min(stop * self.bits, self.of.n_rows)).view(np.uint32)
            unpack_codes(words.T, self.bits, taken[done : done + n_codes].T)
            done += (stop - start) * UNIT
        return taken[at]

    def _unpack_columns(self, matrix: int, start: int, stop: int, out: NDArray[np.uint8]) -> None:
        columns = start * UNIT, min(stop * UNIT, self.shape[1])
        for first in range(0, self.of.n_rows, self._words_of_pass):
            last, code = min(first + self._words_of_pass, self.of.n_rows), first // self.bits * UNIT
            part = out[: columns[1] - columns[0], code : code + self._words_of_pass // self.bits * UNIT]
            unpack_codes(self.of.part_of_rows(first, last, columns).view(np.uint32).T, self.bits, part)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        units = min(n_rows if scattered else n_rows // UNIT + 2, -(-self.height // UNIT))
        below = min(units * self.bits, self.of.n_rows)
        codes = (units * UNIT + n_rows) * self.shape[1]
        return self.of.working_set(below, scattered=scattered) + codes + n_rows * NUMBERS_BYTES


@dataclass(frozen=True)
class RowPlanes(Codes):
    """Codes whose rows are packed in planes: a stored number holds one row of each part of the matrix.

    Row r of P stored rows holds rows r, r + P, r + 2 P ... of the matrix.

    Attributes:
        of: Stored integers, (P, C).
        bits: Of a code.
        order: Where each part's code lies in a number, counted in codes from the lowest bits.
    """

    bits: int
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.of.shape) != 2:
            raise InputError(f"packed weights of shape {self.of.shape} are no matrix")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.of.shape[0] * len(self.order), self.of.shape[1]

    def reused(self) -> Iterator[TensorExpr]:
        yield self.of

    def take(self, rows: RowNumbers) -> Rows:
        part, within = np.divmod(rows, self.of.shape[0])
        below, at = np.unique(within, return_inverse=True)
        packed = self.of.take(below)
        unsigned = packed.view(f"u{packed.itemsize}")
        shift = (np.array(self.order)[part] * self.bits).astype(unsigned.dtype)
        codes: NDArray[np.uint8] = ((unsigned[at] >> shift[:, None]) & unsigned.dtype.type(self._mask)).astype(np.uint8)
        return codes

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        below = min(n_rows, self.of.n_rows)
        wide = n_rows * self.of.row_bytes
        return self.of.working_set(below, scattered=True) + 4 * wide + n_rows * NUMBERS_BYTES


@dataclass(frozen=True)
class Lookup(TensorExpr):
    """The values of codes, looked up in a table.

    Attributes:
        codes: Small whole numbers.
        levels: A vector: the value of each code.
    """

    codes: TensorExpr
    levels: TensorExpr
    dtype: TensorType = F32

    def __post_init__(self) -> None:
        if not isinstance(self.codes.dtype, ElementType) or self.codes.dtype.dtype.kind not in "iu":
            raise InputError(f"codes of type {self.codes.dtype} are looked up in a table")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.codes.shape

    def reused(self) -> Iterator[TensorExpr]:
        yield self.levels

    def table(self, codes: Rows) -> NDArray[np.float32]:
        """The values of at least 256 codes, of which `codes` are some.

        Raises:
            InputError: one of `codes` has no value.
        """
        levels = self.levels.rows(0, 1)[0].astype(np.float32)
        n_codes = 1 << self.codes.bits if isinstance(self.codes, Codes) else 256
        if len(levels) < n_codes or codes.dtype.kind == "i":
            low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
            if low < 0 or high >= len(levels):
                raise InputError(
                    f"a code is {low if low < 0 else high}, and its table has {len(levels)} values", hint=_INTACT
                )
        return np.pad(levels, (0, max(0, 256 - len(levels))))

    def take(self, rows: RowNumbers) -> Rows:
        codes = self.codes.take(rows)
        values: Rows = self.table(codes)[codes]
        return values

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        codes = self.codes.working_set(n_rows, scattered=scattered) + self.levels.working_set(1)
        # NumPy converts the codes to 8-byte integers for the look-up
        return codes + 3 * n_rows * F32.row_bytes(self.shape[-1]) + n_rows * NUMBERS_BYTES

    @property
    def words(self) -> str:
        return "codes looked up in a table"


@dataclass(frozen=True)
class Gathered(TensorExpr):
    """Columns chosen by a stored index: column i of the result is column `index[i]` of `of`.

    Attributes:
        of: The tensor; a matrix.
        index: Whole numbers, (n).
    """

    of: TensorExpr
    index: TensorExpr

    def __post_init__(self) -> None:
        if len(self.index.shape) != 1 or len(self.of.shape) != 2:
            raise InputError(f"an index of shape {self.index.shape} into shape {self.of.shape}")

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return self.of.dtype

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.of.shape[0], *self.index.shape

    def reused(self) -> Iterator[TensorExpr]:
        yield self.index

    @property
    def columns(self) -> NDArray[np.int64]:
        """The index, read.

        Raises:
            InputError: it names a column that does not exist.
        """
        index: NDArray[np.int64] = self.index.rows(0, 1)[0].astype(np.int64)
        for group in (int(index.min()), int(index.max())):
            if not 0 <= group < self.of.shape[1]:
                raise InputError(f"g_idx names group {group}, and there are {self.of.shape[1]}", hint=_INTACT)
        return index

    def take(self, rows: RowNumbers) -> Rows:
        return np.ascontiguousarray(self.of.take(rows)[:, self.columns])

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        index = self.index.working_set(1) + 16 * self.index.shape[0]
        below = self.of.working_set(n_rows, scattered=scattered)
        return below + index + n_rows * (2 * self.row_bytes + NUMBERS_BYTES)

    @property
    def words(self) -> str:
        return "groups named by an index"
