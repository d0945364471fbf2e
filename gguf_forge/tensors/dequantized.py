"""Weights of quantized checkpoints, dequantized row by row in float32 as the reference does it.

Every formula is one float32 operation on exact terms, so the results are the same wherever they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType


@dataclass(frozen=True)
class Scaled(TensorExpr):
    """Small floats or integers times their scales: value (m, i, j) has scale (m, i // row_block, j // column_block).

    Attributes:
        codes: The stored numbers, (..., R, C).
        scales: Their scales, (..., ceil(R / row_block), ceil(C / column_block)).
        row_block: How many rows share a scale.
        column_block: How many columns share a scale.
    """

    codes: TensorExpr
    scales: TensorExpr
    row_block: int
    column_block: int
    dtype: TensorType = F32

    def __post_init__(self) -> None:
        *leading, n_rows, n_columns = (1, *self.codes.shape)[-max(2, len(self.codes.shape)) :]
        wanted = (*leading, -(-n_rows // self.row_block), -(-n_columns // self.column_block))
        if self.scales.shape != wanted:
            raise InputError(f"scales of shape {self.scales.shape} do not fit: {wanted} are expected")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.codes.shape

    def take(self, rows: RowNumbers) -> Rows:
        matrix, within = np.divmod(rows, self.codes.matrix_rows)
        below, at = np.unique(matrix * self.scales.matrix_rows + within // self.row_block, return_inverse=True)
        scales = self.scales.take(below).astype(np.float32)
        if self.column_block > 1:
            scales = scales.repeat(self.column_block, axis=1)[:, : self.shape[-1]]
        values: Rows = self.codes.take(rows).astype(np.float32)
        values *= scales[at]
        return values

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        codes = self.codes.working_set(n_rows, scattered=scattered)
        wide = n_rows * F32.row_bytes(self.shape[-1])
        return codes + self.scales.working_set(n_rows, scattered=True) + 4 * wide + n_rows * NUMBERS_BYTES

    def sources(self) -> Iterator[Source]:
        yield from self.codes.sources()
        yield from self.scales.sources()

    @property
    def words(self) -> str:
        return f"{self.codes.dtype} times scales"


def bit_fields(words: NDArray[np.uint32], bits: int, first: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Numbers of `bits` bits out of a stream of 32-bit words, lowest bits first; one may lie across two words.

    Args:
        words: (n, W).
        bits: Of each number, up to 16.
        first: The bit of a row that each number begins at.

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


@dataclass(frozen=True)
class GptqColumns(TensorExpr):
    """GPTQ's weights as they are stored, (in, out): the model's matrix transposed.

    Row i is scales[g] * (codes[i] - zeros[g]), with g the group of input i. Codes are packed along `in`, zero points
    along `out`. Source: GPTQModel's dequantization, as the reference follows it.

    Attributes:
        qweight: int32 (in * bits / 32, out).
        qzeros: int32 (groups, out * bits / 32).
        scales: (groups, out).
        groups: int32 (in): the group of each input; None for groups of equal size, one after the other.
        bits: Of a code: 2, 3, 4 or 8.
        offset: What is added to stored zero points: 1 in the first version of the format.
    """

    qweight: TensorExpr
    qzeros: TensorExpr
    scales: TensorExpr
    groups: TensorExpr | None
    bits: int
    offset: int
    dtype: TensorType = F32

    def __post_init__(self) -> None:
        n_in, n_out = self.shape
        n_groups = self.scales.shape[0]
        if self.qweight.shape[0] * 32 % self.bits or n_out * self.bits % 32:
            raise InputError(f"packed weights {self.qweight.shape} are no whole number of {self.bits}-bit codes")
        if self.scales.shape != (n_groups, n_out) or self.qzeros.shape != (n_groups, n_out * self.bits // 32):
            raise InputError(
                f"scales {self.scales.shape} and zero points {self.qzeros.shape} do not fit {n_in} x {n_out} weights"
            )
        if self.groups is not None and self.groups.shape != (n_in,):
            raise InputError(f"g_idx has shape {self.groups.shape}, and there are {n_in} inputs")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.qweight.shape[0] * 32 // self.bits, self.qweight.shape[1])

    def take(self, rows: RowNumbers) -> Rows:
        codes = self._codes(rows)
        groups, at = np.unique(self._groups_of(rows), return_inverse=True)
        if groups[0] < 0 or groups[-1] >= self.scales.shape[0]:
            raise InputError(f"g_idx names group {groups[-1]}, and there are {self.scales.shape[0]}")
        zeros = bit_fields(self.qzeros.take(groups).view(np.uint32), self.bits, np.arange(self.shape[1]) * self.bits)
        scales = self.scales.take(groups).astype(np.float32)
        difference = codes - (zeros.astype(np.int32) + self.offset)[at]
        return scales[at] * difference.astype(np.float32)

    def _codes(self, rows: RowNumbers) -> NDArray[np.int32]:
        """The codes of some inputs, (len(rows), out). A code may lie across two words, one above the other."""
        word, shift = np.divmod(rows * self.bits, 32)
        last = np.minimum(word + (shift + self.bits > 32), self.qweight.shape[0] - 1)
        needed, at = np.unique(np.concatenate((word, last)), return_inverse=True)
        words = self.qweight.take(needed).view(np.uint32)
        shift = shift[:, None].astype(np.uint32)
        low = words[at[: len(rows)]] >> shift
        crosses = shift + np.uint32(self.bits) > 32
        high = words[at[len(rows) :]] << ((np.uint32(32) - shift) & np.uint32(31))
        codes = np.where(crosses, low | high, low) & np.uint32((1 << self.bits) - 1)
        signed: NDArray[np.int32] = codes.astype(np.int32)
        return signed

    def _groups_of(self, rows: RowNumbers) -> RowNumbers:
        if self.groups is None:
            size = -(-self.shape[0] // self.scales.shape[0])
            return rows // size
        named: RowNumbers = self.groups.take(np.zeros(1, np.int64))[0][rows].astype(np.int64)
        return named

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        stored = (self.qweight, self.qzeros, self.scales)
        below = sum(expr.working_set(min(n_rows + 1, expr.n_rows), scattered=True) for expr in stored)
        wide = n_rows * F32.row_bytes(self.shape[1])
        return below + 8 * wide + n_rows * NUMBERS_BYTES + 16 * self.shape[0]

    def sources(self) -> Iterator[Source]:
        for expr in self.children():
            yield from expr.sources()

    @property
    def words(self) -> str:
        return f"{self.bits}-bit codes less zero points, times scales"
