"""The ladder of a block: the values that its weights could be rounded to.

Every type of ggml turns the code of a weight into `base + step * rung`. The rungs belong to the type (`LevelScheme`);
base and step belong to the sub-block, the values that share a scale. Where a sub-block's ladder begins and how wide its
steps are is found with the kernels themselves: two copies of the block, in which all codes are the same known one, are
unpacked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import UsageError
from gguf_forge.kernels.rows import dequantize
from gguf_forge.types.blocks import block_dtype
from gguf_forge.types.levels import Grid, LevelScheme
from gguf_forge.types.tensor_type import TensorType


@cache
def _code_mask(tensor_type: TensorType) -> NDArray[np.uint8]:
    """Which bits of a block are codes, not scales."""
    block = np.zeros(1, block_dtype(tensor_type))
    for name, bits in _scheme(tensor_type).codes.masks.items():
        if bits is None:
            block[name].view(np.uint8)[...] = 0xFF
        else:
            block[name] = np.array(bits, block[name].dtype)
    return block.view(np.uint8)


def _scheme(tensor_type: TensorType) -> LevelScheme:
    if tensor_type.levels is None:
        raise UsageError(f"{tensor_type} has no levels")
    return tensor_type.levels


@cache
def _ends(tensor_type: TensorType) -> tuple[float, float | None]:
    """The rungs of codes whose bits are all 0, and of codes whose bytes are all `fill`; None where the base is 0."""
    scheme = _scheme(tensor_type)
    if isinstance(scheme.codes, Grid):
        return scheme.codes.first, scheme.codes.last
    filled = np.outer((0, scheme.fill), np.ones(tensor_type.block_bytes)).astype(np.uint8)
    blocks = filled.view(block_dtype(tensor_type))[:, 0]
    first, last = scheme.codes.read(blocks)[:, 0].tolist()
    return scheme.values[first - scheme.lowest], scheme.values[last - scheme.lowest]


@dataclass(frozen=True)
class Ladders:
    """Base and step of every sub-block of some blocks, each an array (blocks, sub-blocks)."""

    scheme: LevelScheme
    base: NDArray[np.float32]
    step: NDArray[np.float32]

    def levels(self, block: int, part: int) -> NDArray[np.float32]:
        """The values that a weight of this sub-block could be rounded to."""
        rungs = np.array(self.scheme.rungs, np.float32)
        with np.errstate(invalid="ignore"):
            levels: NDArray[np.float32] = self.base[block, part] + self.step[block, part] * rungs
        return levels

    def in_steps(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (blocks, values of a block) in steps from their sub-block's base; NaN where the step is 0."""
        parts = values.reshape(*self.base.shape, -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps: NDArray[np.float32] = np.where(
                self.step[..., None] != 0, (parts - self.base[..., None]) / self.step[..., None], np.nan
            )
        return steps.reshape(values.shape)

    def rung_numbers(self, stored: NDArray[np.float32]) -> NDArray[np.int64]:
        """Which rung each stored value is on, from 0; -1 where the step is 0."""
        rungs = np.array(self.scheme.rungs, np.float32)
        steps = self.in_steps(stored)
        numbers: NDArray[np.int64] = np.searchsorted((rungs[1:] + rungs[:-1]) / 2, np.nan_to_num(steps))
        return np.where(np.isnan(steps), -1, numbers)


def ladders(blocks: NDArray[np.uint8], tensor_type: TensorType) -> Ladders:
    """The ladders of packed blocks.

    Args:
        blocks: uint8 array (blocks, tensor_type.block_bytes).
        tensor_type: Their type, one with levels.

    Example:
        >>> from gguf_forge import quantize
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> block = quantize(np.linspace(-8, 7, 32, dtype=np.float32)[None], "Q4_0")
        >>> ladders(block, TensorType.named("Q4_0")).levels(0, 0)[:3].tolist()
        [-8.0, -7.0, -6.0]
    """
    scheme = _scheme(tensor_type)
    mask = _code_mask(tensor_type)
    scales = blocks & ~mask

    def unpacked(fill: int) -> NDArray[np.float32]:
        return dequantize(scales | (mask & np.uint8(fill)), tensor_type)[:, :: scheme.values_per_scale]

    lowest, highest = _ends(tensor_type)
    low = unpacked(0)
    if highest is None:
        step = low / np.float32(lowest)
        return Ladders(scheme, np.zeros_like(step), step)
    high = unpacked(scheme.fill)
    with np.errstate(invalid="ignore"):
        step = (high - low) / np.float32(highest - lowest)
        return Ladders(scheme, low - step * np.float32(lowest), step)
