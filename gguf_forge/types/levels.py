"""The levels of a packed type: the values of its codes, and the places of the codes in a block.

A type turns the code of a weight into `base + step * value`. The values belong to the type; base and step belong to
a group of weights that share a scale.
Source: ggml-common.h and the dequantizers of ggml-quants.c; the comments of csrc/blocks.h say where the bits lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[np.void]
Codes = NDArray[Any]
# The bits of each item of a field that belong to codes; None if all bits do.
Masks = Mapping[str, tuple[int, ...] | None]


@dataclass(frozen=True)
class Bits:
    """Codes that stand in a field, `bits` bits each.

    Attributes:
        field: Where the low bits of the codes stand.
        run: Bytes that are read together: first the lowest bits of each of them, then the next ones.
        bits: How many bits of a code stand in `field`. Codes of 8 bits have the sign of the field.
        high: Where the bits above these stand.
    """

    field: str
    run: int
    bits: int
    high: Bits | None = None

    @property
    def masks(self) -> Masks:
        return {self.field: None, **(self.high.masks if self.high else {})}

    def read(self, blocks: Blocks) -> Codes:
        """From (n,) blocks to (n, block_elements) codes."""
        stored = blocks[self.field]
        if self.bits == 8:
            return stored
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)[:, None]
        runs = stored.reshape(len(stored), -1, 1, self.run)
        low: Codes = (runs >> shifts & ((1 << self.bits) - 1)).reshape(len(stored), -1)
        return low if self.high is None else low | self.high.read(blocks) << self.bits


@dataclass(frozen=True)
class Trits:
    """The codes of TQ1_0. A byte, seen as a fraction of 256, holds digits in base 3. The first digit is the whole part
    of three times this fraction.

    Attributes:
        parts: Field, first byte, byte after the last, and how many digits each of these bytes holds.
    """

    parts: tuple[tuple[str, int, int, int], ...]

    @property
    def masks(self) -> Masks:
        return {field: None for field, *_ in self.parts}

    def read(self, blocks: Blocks) -> Codes:
        """From (n,) blocks to (n, block_elements) codes."""
        digits = [
            (blocks[field][:, start:stop] * np.uint8(3**n)).astype(np.uint16) * 3 >> 8
            for field, start, stop, count in self.parts
            for n in range(count)
        ]
        return np.concatenate(digits, axis=1)


@dataclass(frozen=True)
class Grid:
    """Codes that each stand for several values: the points of a grid, and their signs.

    Attributes:
        size: Values of a point.
        masks: The fields that say which point, and the signs.
        first: The first value of the point whose bits are all 0.
        last: The first value of the point whose bits are all 1; None where no block moves its levels away from zero.
    """

    size: int
    masks: Masks
    first: float
    last: float | None = None


@dataclass(frozen=True)
class LevelScheme:
    """What the codes of a type stand for.

    Attributes:
        values_per_scale: Values that share a scale (and an offset).
        values: What each code stands for, before scaling, from the lowest code on. Of a grid: all values that the
            coordinates of its points have, in ascending order.
        codes: Where the codes lie.
        has_offset: Whether a block can move its levels away from zero. Such types are called asymmetric.
        lowest: The lowest code that a quantizer uses.
        fill: A byte that gives all codes the same high value, where the bytes of codes are filled with it.
    """

    values_per_scale: int
    values: tuple[float, ...]
    codes: Bits | Trits | Grid
    has_offset: bool = False
    lowest: int = 0
    fill: int = 0xFF

    @property
    def highest(self) -> int:
        """The highest code that a quantizer uses."""
        return self.lowest + len(self.values) - 1

    @property
    def is_grid(self) -> bool:
        """Whether each code stands for several values."""
        return isinstance(self.codes, Grid)

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Where the level of each code lies, from the lowest code on, up to a scale and an offset."""
        return np.asarray(self.values, np.float64)

    @cached_property
    def rungs(self) -> tuple[float, ...]:
        """The values without repetition, in ascending order."""
        return tuple(sorted(set(map(float, self.values))))

    @property
    def is_uniform(self) -> bool:
        """Whether the levels are equally far apart."""
        return len(set(np.diff(self.rungs).tolist())) == 1
