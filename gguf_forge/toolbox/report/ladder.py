"""The ladder of a block: the values that its weights could be rounded to.

Every type of ggml turns the code of a weight into `base + step * rung`. The rungs belong to the type; base and step to
the sub-block, the values that share a scale. Where a sub-block's ladder begins and how wide its steps are is found
with the kernels themselves: two copies of the block, in which all codes are the same known one, are unpacked.
Source: ggml-common.h and the dequantize_row functions of ggml-quants.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gguf_forge.kernels.binding import dequantizable_types
from gguf_forge.kernels.rows import dequantize
from gguf_forge.types.blocks import block_dtype
from gguf_forge.types.tensor_type import TensorType


@dataclass(frozen=True)
class LadderScheme:
    """What the codes of a type stand for.

    Attributes:
        values_per_scale: Values of a sub-block: they share base and step.
        rungs: What the codes stand for, in steps from the base, ascending.
        low: The rung of a block whose code bits are all 0.
        high: The rung of a block whose code bytes are all `fill`; None where the base is always 0.
        fill: The byte for `high`.
        has_offset: Can a block move its ladder away from zero? Such types are called asymmetric.
    """

    values_per_scale: int
    rungs: tuple[float, ...]
    low: float
    high: float | None
    fill: int = 0xFF
    has_offset: bool = False

    @property
    def is_uniform(self) -> bool:
        """Are the rungs equally far apart?"""
        return len(set(np.diff(self.rungs).tolist())) == 1


def _counted(first: int, last: int) -> tuple[float, ...]:
    return tuple(map(float, range(first, last + 1)))


def _mirrored(*magnitudes: float) -> tuple[float, ...]:
    return (*(-m for m in reversed(magnitudes)), *magnitudes)


def _uniform(size: int, first: int, last: int, *, has_offset: bool = False) -> LadderScheme:
    return LadderScheme(size, _counted(first, last), first, last, has_offset=has_offset)


_NONLINEAR = tuple(map(float, (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)))
_E2M1 = (-6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_SCHEMES = {
    "Q4_0": _uniform(32, -8, 7),
    "Q4_1": _uniform(32, 0, 15, has_offset=True),
    "Q5_0": _uniform(32, -16, 15),
    "Q5_1": _uniform(32, 0, 31, has_offset=True),
    "Q8_0": LadderScheme(32, _counted(-127, 127), 0, 127, fill=0x7F),
    "Q2_K": _uniform(16, 0, 3, has_offset=True),
    "Q3_K": _uniform(16, -4, 3),
    "Q4_K": _uniform(32, 0, 15, has_offset=True),
    "Q5_K": _uniform(32, 0, 31, has_offset=True),
    "Q6_K": _uniform(16, -32, 31),
    "IQ2_XXS": LadderScheme(32, _mirrored(8, 25, 43), 8, None),
    "IQ2_XS": LadderScheme(16, _mirrored(8, 25, 43), 8, None),
    "IQ2_S": LadderScheme(16, _mirrored(8, 25, 43), 8, None),
    "IQ3_XXS": LadderScheme(32, _mirrored(4, 12, 20, 28, 36, 44, 52, 62), 4, None),
    "IQ3_S": LadderScheme(32, _mirrored(1, 3, 5, 7, 9, 11, 13, 15), 1, None),
    "IQ1_S": LadderScheme(32, (-1.0, 0.0, 1.0), -1, 1, has_offset=True),
    "IQ1_M": LadderScheme(8, (-1.0, 0.0, 1.0), -1, 1, has_offset=True),
    "IQ4_NL": LadderScheme(32, _NONLINEAR, -127, 113),
    "IQ4_XS": LadderScheme(32, _NONLINEAR, -127, 113),
    "TQ1_0": LadderScheme(256, (-1.0, 0.0, 1.0), -1, 1),
    "TQ2_0": LadderScheme(256, (-1.0, 0.0, 1.0), -1, 2),
    "MXFP4": LadderScheme(32, _E2M1, 0, 6, fill=0x77),
    "NVFP4": LadderScheme(16, _E2M1, 0, 6, fill=0x77),
    "Q1_0": LadderScheme(128, (-1.0, 1.0), -1, 1),
    "Q2_0": LadderScheme(64, (-1.0, 0.0, 1.0, 2.0), -1, 2),
}

_CODE_FIELDS = frozenset(("qs", "qh", "ql", "hmask", "signs"))
# Fields that hold scales beside codes: the bits of the codes.
_CODE_BITS = {
    ("IQ2_XXS", "qs"): np.array([0xFFFFFFFF, 0x0FFFFFFF], "<u4"),
    ("IQ3_XXS", "signs_scales"): np.array([0x0FFFFFFF], "<u4"),
    ("IQ1_S", "qh"): np.array([0x0FFF], "<u2"),
    ("IQ1_M", "qh"): np.array([0x77], "u1"),
}


def scheme_of(kind: TensorType) -> LadderScheme | None:
    """The scheme of a type; None where every weight is a float of its own, or no kernel unpacks it."""
    return _SCHEMES.get(kind.name) if kind in dequantizable_types() else None


@cache
def _code_mask(kind: TensorType) -> NDArray[np.uint8]:
    """Which bits of a block are codes, not scales."""
    block = np.zeros(1, block_dtype(kind))
    for name in block.dtype.names or ():
        bits = _CODE_BITS.get((kind.name, name))
        if bits is not None:
            block[name] = bits
        elif name in _CODE_FIELDS:
            block[name].view(np.uint8)[...] = 0xFF
    return block.view(np.uint8)


@dataclass(frozen=True)
class Ladders:
    """Base and step of every sub-block of some blocks, each an array (blocks, sub-blocks)."""

    scheme: LadderScheme
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


def ladders(blocks: NDArray[np.uint8], kind: TensorType) -> Ladders:
    """The ladders of packed blocks.

    Args:
        blocks: uint8 array (blocks, kind.block_bytes).
        kind: Their type, one with a scheme.

    Example:
        >>> from gguf_forge import quantize
        >>> from gguf_forge.types.tensor_type import tensor_type
        >>> block = quantize(np.linspace(-8, 7, 32, dtype=np.float32)[None], "Q4_0")
        >>> ladders(block, tensor_type("Q4_0")).levels(0, 0)[:3].tolist()
        [-8.0, -7.0, -6.0]
    """
    scheme = _SCHEMES[kind.name]
    mask = _code_mask(kind)
    scales = blocks & ~mask

    def unpacked(fill: int) -> NDArray[np.float32]:
        return dequantize(scales | (mask & np.uint8(fill)), kind)[:, :: scheme.values_per_scale]

    low = unpacked(0)
    if scheme.high is None:
        step = low / np.float32(scheme.low)
        return Ladders(scheme, np.zeros_like(step), step)
    high = unpacked(scheme.fill)
    with np.errstate(invalid="ignore"):
        step = (high - low) / np.float32(scheme.high - scheme.low)
        return Ladders(scheme, low - step * np.float32(scheme.low), step)
