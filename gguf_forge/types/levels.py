"""The levels of packed blocks: the small whole number that each weight was rounded to.

Source: the dequantizers of ggml-quants.c; the comments of csrc/blocks.h say where the bits lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.types.blocks import unpack_blocks
from gguf_forge.types.tensor_type import TensorType

_Blocks = NDArray[np.void]
_Levels = NDArray[Any]


@dataclass(frozen=True)
class LevelScheme:
    """How a type's levels are stored.

    Attributes:
        lowest, highest: The levels that its quantizer uses, as they are stored (before an offset is taken away).
        group: Values that share a scale.
        read: From (n,) blocks to (n, block_elements) levels.
        values: What each level stands for, before scaling, where levels are not evenly spaced.
    """

    lowest: int
    highest: int
    group: int
    read: Callable[[_Blocks], _Levels]
    values: tuple[int, ...] = ()

    @property
    def is_linear(self) -> bool:
        """Are the levels evenly spaced?"""
        return not self.values

    @property
    def positions(self) -> NDArray[np.float64]:
        """Where each level lies, from the lowest on, up to a scale and an offset."""
        return np.asarray(self.values or range(self.lowest, self.highest + 1), np.float64)


def levels_of(packed: NDArray[np.uint8], kind: TensorType) -> NDArray[np.int16] | None:
    """The level of each value of packed rows.

    Args:
        packed: uint8 array (rows, bytes).
        kind: What it holds.

    Returns:
        int16 array (rows, values); None for types without levels: floats, and the i-quants of 1 to 3 bits, whose
        values are points of a grid.

    Example:
        >>> from gguf_forge import quantize
        >>> from gguf_forge.types.tensor_type import tensor_type
        >>> levels_of(quantize(np.arange(32, dtype=np.float32)[None], "Q8_0"), tensor_type("Q8_0"))[0, -3:]
        array([119, 123, 127], dtype=int16)
    """
    scheme = SCHEMES.get(kind.name)
    if scheme is None:
        return None
    blocks = unpack_blocks(np.ascontiguousarray(packed), kind)
    return scheme.read(blocks.reshape(-1)).astype(np.int16).reshape(len(packed), -1)


def _split(stored: NDArray[np.uint8], group: int, bits: int) -> _Levels:
    """Numbers of `bits` bits: the lowest of each byte of a group in turn, then the next ones."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    bytes_ = stored.reshape(len(stored), -1, 1, group)
    found: _Levels = (bytes_ >> shifts & ((1 << bits) - 1)).reshape(len(stored), -1)
    return found


def _nibbles(group: int) -> Callable[[_Blocks], _Levels]:
    return lambda blocks: _split(blocks["qs"], group, 4)


def _pairs(group: int) -> Callable[[_Blocks], _Levels]:
    return lambda blocks: _split(blocks["qs"], group, 2)


def _with_high_bits(low: _Levels, high: _Levels, shift: int) -> _Levels:
    found: _Levels = low | high << shift
    return found


def _q5(blocks: _Blocks) -> _Levels:
    return _with_high_bits(_split(blocks["qs"], 16, 4), _split(blocks["qh"], 1, 1), 4)


def _q3_k(blocks: _Blocks) -> _Levels:
    return _with_high_bits(_split(blocks["qs"], 32, 2), _split(blocks["hmask"], 32, 1), 2)


def _q5_k(blocks: _Blocks) -> _Levels:
    return _with_high_bits(_split(blocks["qs"], 32, 4), _split(blocks["qh"], 32, 1), 4)


def _q6_k(blocks: _Blocks) -> _Levels:
    return _with_high_bits(_split(blocks["ql"], 64, 4), _split(blocks["qh"], 32, 2), 4)


def _tq1_0(blocks: _Blocks) -> _Levels:
    """A byte holds five digits in base 3 as a fraction of 256: the first digit is the whole part of thrice it."""
    qs = blocks["qs"]
    parts = [(qs[:, :32], 5), (qs[:, 32:], 5), (blocks["qh"], 4)]
    digits = [(part * np.uint8(3**n)).astype(np.uint16) * 3 >> 8 for part, count in parts for n in range(count)]
    return np.concatenate(digits, axis=1)


_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)

SCHEMES = {
    **dict.fromkeys(("Q4_0", "Q4_1"), LevelScheme(0, 15, 32, _nibbles(16))),
    **dict.fromkeys(("IQ4_NL", "IQ4_XS"), LevelScheme(0, 15, 32, _nibbles(16), _IQ4)),
    "MXFP4": LevelScheme(0, 15, 32, _nibbles(16), _E2M1),
    "NVFP4": LevelScheme(0, 15, 16, _nibbles(8), _E2M1),
    **dict.fromkeys(("Q5_0", "Q5_1"), LevelScheme(0, 31, 32, _q5)),
    "Q8_0": LevelScheme(-127, 127, 32, lambda blocks: blocks["qs"]),
    "Q2_K": LevelScheme(0, 3, 16, _pairs(32)),
    "Q3_K": LevelScheme(0, 7, 16, _q3_k),
    "Q4_K": LevelScheme(0, 15, 32, _nibbles(32)),
    "Q5_K": LevelScheme(0, 31, 32, _q5_k),
    "Q6_K": LevelScheme(0, 63, 16, _q6_k),
    "TQ1_0": LevelScheme(0, 2, 256, _tq1_0),
    "TQ2_0": LevelScheme(0, 2, 256, _pairs(32)),
    "Q1_0": LevelScheme(0, 1, 128, lambda blocks: _split(blocks["qs"], 1, 1)),
    "Q2_0": LevelScheme(0, 3, 64, _pairs(1)),
}
