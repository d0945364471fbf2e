"""Unpacks the codes of quantized checkpoints from the bytes and words that they are packed in.

Codes are small whole numbers without a sign. Scales and zero points (`dequantized.py`) or a table (`Lookup`) turn them
into values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr, Unary
from gguf_forge.types.element_type import ELEMENT_TYPES, ElementType
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

U8 = ELEMENT_TYPES["U8"]


def bit_fields(words: NDArray[np.uint32], bits: int, first: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Numbers of `bits` bits from a stream of 32-bit words, lowest bits first. A number may lie across two words.

    Args:
        words: (n, W).
        bits: How many bits each number has, up to 16.
        first: The bit of a row at which each number begins.

    Example:
        >>> bit_fields(np.array([[0x87654321]], np.uint32), 4, np.arange(8) * 4).tolist()
        [[1, 2, 3, 4, 5, 6, 7, 8]]
    """
    word, shift = np.divmod(first, 32)
    low = words[:, word] >> shift.astype(np.uint32)
    crosses = shift + bits > 32
    if crosses.any():
        after = words[:, np.minimum(word + 1, words.shape[1] - 1)]
        high = after << ((32 - shift) & 31).astype(np.uint32)
        low = np.where(crosses, low | high, low)
    fields: NDArray[np.uint32] = low & np.uint32((1 << bits) - 1)
    return fields


class Codes(Unary):
    """Codes of up to 8 bits, given as one byte each."""

    bits: int
    dtype: ElementType = U8  # type: ignore[assignment]

    @property
    def source_type(self) -> TensorType:
        return F32

    @property
    def _mask(self) -> int:
        return (1 << self.bits) - 1

    @property
    def words(self) -> str:
        return f"{self.bits}-bit codes"


@dataclass(frozen=True)
class RowCodes(Codes):
    """Codes that are packed along the rows: a stream of bits, the lowest first.

    Attributes:
        of: Stored integers, (..., W).
        bits: Of a code.
        width: The codes of a row; what is packed beyond them is padding.
        order: The place of each column in its group of `len(order)` codes, if columns do not follow one another.
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

    def take(self, rows: RowNumbers) -> Rows:
        packed: NDArray[np.uint8] = self.of.take(rows).view(np.uint8)
        codes = self._of_bytes(packed) if 8 % self.bits == 0 else self._of_stream(packed)
        if self.order:
            codes = codes.reshape(len(rows), -1, len(self.order))[:, :, list(self.order)].reshape(len(rows), -1)
        return codes

    def _of_bytes(self, packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Codes of which each byte holds a whole number, such as two codes of 4 bits."""
        each = 8 // self.bits
        codes = np.empty((len(packed), packed.shape[1] * each), np.uint8)
        for place in range(each):
            np.right_shift(packed, place * self.bits, out=codes[:, place::each])
        codes &= np.uint8(self._mask)
        return codes[:, : self.width]

    def _of_stream(self, packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))
        return bit_fields(padded.view(np.uint32), self.bits, np.arange(self.width) * self.bits).astype(np.uint8)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        # The codes. If a byte does not hold a whole number of codes, they are also computed as words of 4 bytes.
        wide = n_rows * self.width * (3 if 8 % self.bits == 0 else 24)
        return self.of.working_set(n_rows, scattered=scattered) + wide + 16 * self.width + n_rows * NUMBERS_BYTES


@dataclass(frozen=True)
class ColumnCodes(Codes):
    """Codes that are packed along the columns: each column is a stream of bits in words of 32, the lowest first.

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

    def take(self, rows: RowNumbers) -> Rows:
        word, shift = np.divmod(rows * self.bits, 32)
        last = np.minimum(word + (shift + self.bits > 32), self.of.shape[0] - 1)
        needed, at = np.unique(np.concatenate((word, last)), return_inverse=True)
        words = self.of.take(needed).view(np.uint32)
        shift = shift[:, None].astype(np.uint32)
        low = words[at[: len(rows)]] >> shift
        crosses = shift + np.uint32(self.bits) > 32
        if crosses.any():
            high = words[at[len(rows) :]] << ((np.uint32(32) - shift) & np.uint32(31))
            low = np.where(crosses, low | high, low)
        codes: NDArray[np.uint8] = (low & np.uint32(self._mask)).astype(np.uint8)
        return codes

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        below = min(n_rows + 1, self.of.n_rows)
        wide = n_rows * F32.row_bytes(self.shape[1])
        return self.of.working_set(below, scattered=True) + 5 * wide + n_rows * NUMBERS_BYTES


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

    def take(self, rows: RowNumbers) -> Rows:
        levels = self.levels.rows(0, 1)[0].astype(np.float32)
        codes = self.codes.take(rows)
        if len(levels) < 256 or codes.dtype.kind == "i":
            low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
            if low < 0 or high >= len(levels):
                raise InputError(f"a code is {low if low < 0 else high}, and its table has {len(levels)} values")
        values: Rows = levels[codes]
        return values

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        codes = self.codes.working_set(n_rows, scattered=scattered) + self.levels.working_set(1)
        # NumPy converts the codes to 8-byte integers for the look-up
        return codes + 3 * n_rows * F32.row_bytes(self.shape[-1]) + n_rows * NUMBERS_BYTES

    def sources(self) -> Iterator[Source]:
        yield from self.codes.sources()
        yield from self.levels.sources()

    @property
    def words(self) -> str:
        return "codes looked up in a table"


@dataclass(frozen=True)
class Gathered(TensorExpr):
    """Columns or rows chosen by a stored index: number i of the result is number `index[i]` of `of`.

    Attributes:
        of: The tensor; a matrix.
        index: Whole numbers, (n).
        axis: -1 for columns, -2 for rows.
    """

    of: TensorExpr
    index: TensorExpr
    axis: int = -1

    def __post_init__(self) -> None:
        if len(self.index.shape) != 1 or len(self.of.shape) != 2:
            raise InputError(f"an index of shape {self.index.shape} into shape {self.of.shape}")

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return self.of.dtype

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        rows, columns = self.of.shape
        return (rows, *self.index.shape) if self.axis == -1 else (*self.index.shape, columns)

    def take(self, rows: RowNumbers) -> Rows:
        index = self.index.rows(0, 1)[0].astype(np.int64)
        if index.min() < 0 or index.max() >= self.of.shape[self.axis]:
            raise InputError(f"g_idx names group {index.max()}, and there are {self.of.shape[self.axis]}")
        if self.axis == -1:
            return np.ascontiguousarray(self.of.take(rows)[:, index])
        below, at = np.unique(index[rows], return_inverse=True)
        return self.of.take(below)[at]

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        index = self.index.working_set(1) + 16 * self.index.shape[0]
        below = self.of.working_set(min(n_rows, self.of.n_rows), scattered=True)
        return below + index + n_rows * (2 * self.row_bytes + NUMBERS_BYTES)

    def sources(self) -> Iterator[Source]:
        yield from self.of.sources()
        yield from self.index.sources()

    @property
    def words(self) -> str:
        return "groups named by an index"
