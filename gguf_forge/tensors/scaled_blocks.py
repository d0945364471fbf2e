"""Codes with scales, as other formats store them, repacked as ggml's blocks of 32. No value changes.

Source: `block_q4_0` to `block_q8_0` in ggml-common.h, and their dequantization in ggml-quants.c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr
from gguf_forge.types.rows import PackedRows, RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, TensorType

BLOCK = 32
# What a type adds to a level before it stores it, so that the stored number has no sign. Q8_0 stores signed numbers.
# Types with a minimum store the codes as they are.
BIAS = {Q4_0: 8, Q5_0: 16, Q8_0: 0}
WITH_MINIMUM = (Q4_1, Q5_1)


@dataclass(frozen=True)
class RepackScaled(TensorExpr):
    """Integer codes with zero points or biases, as ggml's blocks of a type that holds their values.

    `exact_blocks.py` proves that the type does. A scale for more than 32 columns is repeated in each of their blocks.

    Attributes:
        of: Codes whose scales are for whole blocks of columns.
        dtype: Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0.
    """

    of: Scaled
    dtype: TensorType

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.of.shape

    @property
    def rows_together(self) -> int:
        return self.of.rows_together

    def take(self, rows: RowNumbers) -> Rows:
        below, at = self.of.scale_rows(rows)
        scales = self._of_blocks(self.of.scales, below, at)
        stored = self.of.codes.take(rows).view(np.uint8).reshape(*scales.shape, BLOCK)
        if self.dtype in WITH_MINIMUM:
            return packed_blocks(self.dtype, scales, stored, self._minima(scales, below, at))
        # Numbers are added modulo 256. Each sum fits its type, so nothing is lost.
        return packed_blocks(self.dtype, scales, stored + self._offsets(scales, below, at)[..., None])

    def _of_blocks(self, numbers: TensorExpr, below: RowNumbers, at: RowNumbers) -> NDArray[np.float32]:
        """One number for each block of each row."""
        each = numbers.take(below).astype(np.float32)
        n_blocks = self.shape[-1] // BLOCK
        times = n_blocks if each.shape[1] == 1 else self.of.column_block // BLOCK
        repeated: NDArray[np.float32] = each.repeat(times, axis=1)[:, :n_blocks][at]
        return repeated

    def _minima(self, scales: NDArray[np.float32], below: RowNumbers, at: RowNumbers) -> NDArray[np.float32]:
        if self.of.shifts is not None:
            return self._of_blocks(self.of.shifts, below, at)
        return -self._zeros(scales, below, at) * scales

    def _offsets(self, scales: NDArray[np.float32], below: RowNumbers, at: RowNumbers) -> NDArray[np.uint8]:
        """What is added to the codes of each block."""
        zeros = self._zeros(scales, below, at)
        return (BIAS[self.dtype] - zeros.astype(np.int16)).astype(np.uint8)

    def _zeros(self, scales: NDArray[np.float32], below: RowNumbers, at: RowNumbers) -> NDArray[np.float32]:
        """The zero point of each block. A bias that is a multiple of the scale stands for one."""
        if self.of.shifts is not None:
            zeros: NDArray[np.float32] = np.rint(-self._of_blocks(self.of.shifts, below, at) / scales)
            return zeros
        if isinstance(self.of.zeros, TensorExpr):
            return self._of_blocks(self.of.zeros, below, at)
        return np.full(scales.shape, self.of.zeros, np.float32)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        codes, *numbers = self.of.children()
        below = codes.working_set(n_rows, scattered=scattered)
        below += sum(each.working_set(min(n_rows, each.n_rows), scattered=True) for each in numbers)
        # the codes and the levels as bytes, some numbers of 4 bytes for each block, and the blocks
        blocks = n_rows * self.shape[-1] // BLOCK
        return below + blocks * (4 * BLOCK + 8 * F32.row_bytes(1) + self.dtype.block_bytes) + n_rows * NUMBERS_BYTES

    @property
    def words(self) -> str:
        return f"kept as blocks of {self.dtype}"


def packed_blocks(
    kind: TensorType,
    scales: NDArray[np.float32],
    stored: NDArray[np.uint8],
    minima: NDArray[np.float32] | None = None,
) -> PackedRows:
    """Rows of blocks of Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0.

    Args:
        kind: Which of these types.
        scales: (rows, blocks). Float16 holds them.
        stored: (rows, blocks, 32): the numbers of the values as the type stores them, without sign.
        minima: As many as scales, for types that have them.
    """
    packed = np.empty((*scales.shape, kind.block_bytes), np.uint8)
    at = 0
    for numbers in (scales, minima):
        if numbers is not None:
            packed[..., at : at + 2] = numbers.astype("<f2")[..., None].view(np.uint8)
            at += 2
    if kind == Q8_0:
        packed[..., at:] = stored
    else:
        if kind in (Q5_0, Q5_1):
            packed[..., at : at + 4] = np.packbits(stored >> 4, axis=-1, bitorder="little")
        low = stored & np.uint8(0x0F)
        packed[..., -BLOCK // 2 :] = low[..., : BLOCK // 2] | low[..., BLOCK // 2 :] << 4
    return packed.reshape(len(scales), -1)
