"""A grid of vectors, such as one for the position of each patch of a picture, at another size: torch's bilinear
interpolation with aligned corners.

torch computes each value as a chain of fused multiplications and additions of the four corners around it, which it
starts with the lower left one. A fused step rounds once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Resized(Unary):
    """The vectors of a square grid with `side` x `side` places.

    Attributes:
        of: The vectors of a square grid of another size, one row each.
        side: The new number of places along each side.
    """

    side: int

    def __post_init__(self) -> None:
        if self.side < 1 or len(self.of.shape) < 2 or isqrt(self.of.n_rows) ** 2 != self.of.n_rows:
            raise InputError(f"shape {self.of.shape} is not a square grid of vectors")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (*(1 for _ in self.of.shape[:-2]), self.side**2, self.of.shape[-1])

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return F32

    def reused(self) -> Iterator[TensorExpr]:
        yield self.of

    def take(self, rows: RowNumbers) -> Rows:
        below = isqrt(self.of.n_rows)
        high, low = (_between(place, self.side, below) for place in (rows // self.side, rows % self.side))
        total: _Floats | None = None
        for row, column in ((1, 0), (1, 1), (0, 1), (0, 0)):
            corner = self.of.take(high[row][0] * below + low[column][0]).astype(np.float32)
            weight = (high[row][1] * low[column][1])[:, None]
            total = corner * weight if total is None else fused(corner, weight, total)
        assert total is not None
        return total

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows, scattered=True) + 16 * n_rows * F32.row_bytes(self.shape[-1])

    @property
    def words(self) -> str:
        return f"a grid resized to {self.side} x {self.side}"


def _between(places: RowNumbers, count: int, below: int) -> tuple[tuple[RowNumbers, _Floats], ...]:
    """For each place along a side: the places before and after it on the other grid, and how much each counts."""
    step = np.float32((below - 1) / (count - 1)) if count > 1 else np.float32(0)
    exact = places.astype(np.float32) * step
    before = exact.astype(np.int64)
    share = exact - before.astype(np.float32)
    return (before, np.float32(1) - share), (np.minimum(before + 1, below - 1), share)


def fused(a: _Floats, b: _Floats, c: _Floats) -> _Floats:
    """a * b + c with one rounding.

    float64 holds the product of two float32 exactly. Their sum with the third is rounded to odd there, so that the
    rounding to float32 is the only one that counts (Boldo and Melquiond, 2008).

    Example:
        >>> fused(np.float32([3]), np.float32([2]), np.float32([1])).tolist()
        [7.0]
    """
    product, other = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + other
    part = total - product
    error = (product - (total - part)) + (other - part)
    bits = total.view(np.int64)
    bits -= (error != 0) & (np.signbit(error) != np.signbit(total))  # towards zero
    bits |= error != 0
    return total.astype(np.float32)
