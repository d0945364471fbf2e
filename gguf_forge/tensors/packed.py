"""Blocks of other formats repacked as ggml's blocks. Only bits are moved; no value changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import MXFP4, NVFP4, TensorType

# The codes of E8M0, and of e4m3 without its sign, that stand for no number.
NO_E8M0, _NO_E4M3 = 0xFF, 0x7F


def _numbers(scales: NDArray[np.uint8], no_number: int) -> NDArray[np.uint8]:
    """The scales of blocks.

    Raises:
        InputError: one is not a number. ggml's blocks would take it for a number.
    """
    if (scales == no_number).any():
        raise InputError("a scale is not a number", hint="get an intact copy of the model")
    return scales


def _check_bytes(*numbers: TensorExpr) -> None:
    for each in numbers:
        if each.dtype.row_bytes(2) != 2:
            raise InputError(f"numbers of type {each.dtype} are not bytes of packed codes and scales")


@dataclass(frozen=True)
class RepackMxfp4(TensorExpr):
    """MXFP4 of Open Compute (16 bytes a block, (..., R, C / 2), and its scale, (..., R, C / 32)) as ggml's blocks.

    A source byte holds elements 2k and 2k+1, a ggml byte holds elements k and k+16, low nibble first; the E8M0 scale
    goes before its 16 bytes. Source: `block_mxfp4` in ggml-common.h.
    """

    blocks: TensorExpr
    scales: TensorExpr
    dtype: TensorType = MXFP4

    def __post_init__(self) -> None:
        _check_bytes(self.blocks, self.scales)
        if self.blocks.shape != (*self.scales.shape[:-1], self.scales.shape[-1] * 16):
            raise InputError(f"MXFP4 blocks {self.blocks.shape} do not fit scales {self.scales.shape}")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (*self.scales.shape[:-1], self.scales.shape[-1] * 32)

    def take(self, rows: RowNumbers) -> Rows:
        source = self.blocks.take(rows).reshape(-1, 16).view(np.uint8)
        low, high = source & 0x0F, source >> 4
        packed = np.empty((len(source), 17), np.uint8)
        packed[:, 0] = _numbers(self.scales.take(rows).reshape(-1).view(np.uint8), NO_E8M0)
        packed[:, 1::2] = low[:, :8] | low[:, 8:] << 4
        packed[:, 2::2] = high[:, :8] | high[:, 8:] << 4
        return packed.reshape(len(rows), -1)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        stored = self.blocks.working_set(n_rows, scattered=scattered)
        # both nibbles of each byte, the blocks, and the temporary array of one assignment
        return stored + self.scales.working_set(n_rows, scattered=scattered) + 4 * n_rows * self.row_bytes

    @property
    def words(self) -> str:
        return "MXFP4 bits moved to ggml's places"


@dataclass(frozen=True)
class RepackNvfp4(TensorExpr):
    """NVIDIA's NVFP4 (codes (..., R, C / 2), e4m3 scales of 16 values (..., R, C / 16)) as ggml's blocks of 64.

    A block is 4 scales, whose sign is dropped, and 4 times 8 bytes; in each 16, a source byte holds elements 2k and
    2k+1, a ggml byte elements k and k+8, low nibble first. Source: `block_nvfp4` in ggml-common.h.

    Attributes:
        codes: Two of them a byte.
        scales: Of 16 values each.
        tensor_scale: A factor for all values of the tensor. Blocks have no place for it.
        input_scale: The same factor for the activations that the tensor is multiplied with.
        wide_input: Whether these activations must not be rounded to 4 bits.
    """

    codes: TensorExpr
    scales: TensorExpr
    tensor_scale: float = 1.0
    input_scale: float = 1.0
    wide_input: bool = False
    dtype: TensorType = NVFP4

    def __post_init__(self) -> None:
        _check_bytes(self.codes, self.scales)
        if self.codes.shape != (*self.scales.shape[:-1], self.scales.shape[-1] * 8):
            raise InputError(f"NVFP4 codes {self.codes.shape} do not fit scales {self.scales.shape}")
        if self.scales.shape[-1] % 4:
            raise InputError(f"rows of {self.shape[-1]} values are not a whole number of NVFP4 blocks of 64")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (*self.scales.shape[:-1], self.scales.shape[-1] * 16)

    def take(self, rows: RowNumbers) -> Rows:
        source = self.codes.take(rows).view(np.uint8).reshape(-1, 4, 8)
        low, high = source & 0x0F, source >> 4
        packed = np.empty((len(source), 36), np.uint8)
        packed[:, :4] = _numbers(self.scales.take(rows).view(np.uint8).reshape(-1, 4) & np.uint8(0x7F), _NO_E4M3)
        places = packed[:, 4:].reshape(-1, 4, 8)
        places[:, :, 0::2] = low[:, :, :4] | low[:, :, 4:] << 4
        places[:, :, 1::2] = high[:, :, :4] | high[:, :, 4:] << 4
        packed[:, 4:] = places.reshape(-1, 32)
        return packed.reshape(len(rows), -1)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        stored = self.codes.working_set(n_rows, scattered=scattered)
        return stored + self.scales.working_set(n_rows, scattered=scattered) + 5 * n_rows * self.row_bytes

    @property
    def words(self) -> str:
        return "NVFP4 bits moved to ggml's places"
