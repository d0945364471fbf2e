"""Weights of 16 or 32 bits that were trained to be Q4_0: each block of 32 is a scale times whole numbers from -8 to 7.

llama-quantize derives the scale of a block from its largest value, as if that were level -8. Where the largest level
that training left is another one, all values of the block move. The scale that the values share moves none.

A product of a scale and a level was rounded to the type that the weights are stored in. So blocks stand for the stored
weights if their values, rounded to that type, are the stored weights bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import NUMBERS_BYTES, TensorExpr, Unary
from gguf_forge.tensors.scaled_blocks import BIAS, BLOCK, packed_blocks
from gguf_forge.tensors.stored import Stored
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import Q4_0

_SAMPLED_ROWS = 16
_MOST = 8  # the greatest level without its sign
_MANTISSA_BITS = {"bfloat16": 7, "float16": 10, "float32": 23}
# For each block a scale and 32 levels, and whether they give its values.
_Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]


@dataclass(frozen=True)
class OnQ4Grid(Unary):
    """Values on Q4_0's grid as its blocks. A zero loses its sign.

    Raises:
        InputError: rows are taken that have other values.
    """

    dtype = Q4_0

    def take(self, rows: RowNumbers) -> Rows:
        scales, levels, on_grid = _on_grid(self.of, rows)
        if not on_grid.all():
            row = int(rows[np.flatnonzero(~on_grid)[0] // (self.shape[-1] // BLOCK)])
            raise InputError(
                f"row {row} is not on the grid of {Q4_0}, and {_SAMPLED_ROWS} rows that planning looked at are",
                hint="leave out --keep-quantized, or give the type of this tensor with --tensor-type",
            )
        shape = len(rows), self.shape[-1] // BLOCK
        return packed_blocks(Q4_0, scales.reshape(shape), (levels + BIAS[Q4_0]).astype(np.uint8).reshape(*shape, BLOCK))

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        # the values as float32, their levels, and what is computed from them
        wide = 12 * 4 * n_rows * self.shape[-1]
        return self.of.working_set(n_rows, scattered=scattered) + wide + n_rows * NUMBERS_BYTES

    @property
    def words(self) -> str:
        return f"kept as blocks of {self.dtype}"


def on_q4_grid(expr: TensorExpr) -> OnQ4Grid | None:
    """A tensor as Q4_0 blocks, if a few rows of it that are spread over the tensor lie on Q4_0's grid.

    All rows are checked when they are taken. Ternary weights are left alone, because smaller types hold them exactly.
    """
    if not _is_stored_floats(expr) or expr.is_columnwise or expr.shape[-1] % BLOCK:
        return None
    rows = np.unique(np.linspace(0, expr.n_rows - 1, _SAMPLED_ROWS).astype(np.int64))
    if not _on_grid(expr, rows[:1])[2].all():  # as for nearly every tensor that was not trained for Q4_0
        return None
    _, levels, on_grid = _on_grid(expr, rows)
    return OnQ4Grid(expr) if on_grid.all() and np.abs(levels).max() > 1 else None


def _on_grid(expr: TensorExpr, rows: RowNumbers) -> _Found:
    return levels_on_grid(expr.take(rows).astype(np.float32).reshape(-1, BLOCK), expr.dtype.dtype)


def levels_on_grid(values: NDArray[np.float32], kind: np.dtype[Any]) -> _Found:
    """The scale and the levels of each block, and whether these give its values.

    The smallest value of a block that is not zero has one of the levels 1 to 8. Each of these tells the levels of the
    others, and together they leave few scales.

    Args:
        values: (blocks, 32).
        kind: The type that they are stored in.

    Example:
        >>> block = np.array([[0.5, -1.5, *[0] * 30]], np.float32)
        >>> scales, levels, on_grid = levels_on_grid(block, np.dtype(np.float32))
        >>> float(scales[0]), levels[0, :2].tolist(), bool(on_grid[0])
        (0.5, [1.0, -3.0], True)
    """
    scales, levels = np.zeros(len(values), np.float32), np.zeros_like(values)
    magnitudes = np.abs(values)
    smallest = np.where(magnitudes > 0, magnitudes, np.float32(np.inf)).min(axis=1)
    left = np.flatnonzero((values != 0).any(axis=1))
    for level in range(1, _MOST + 1):
        for scales_of in (_of_smallest, _in_the_middle):
            if not len(left):
                break
            with np.errstate(all="ignore"):
                step = smallest[left] / np.float32(level)
                found = np.rint(values[left] / step[:, None])
                scale = scales_of(values[left], found, step, kind).astype(np.float16).astype(np.float32)
                same = ((found * scale[:, None]).astype(kind) == values[left]).all(axis=1) & np.isfinite(scale)
            low, high = found.min(axis=1), found.max(axis=1)
            # Q4_0 has a level -8 and none of 8, so the sign of the scale is that of the side with more levels.
            sign = np.where(high < _MOST, np.float32(1), np.float32(-1))
            fits = same & (np.maximum(-low, high) <= _MOST) & ((high < _MOST) | (low > -_MOST))
            scales[left[fits]] = (sign * scale)[fits]
            levels[left[fits]] = (sign[:, None] * found)[fits]
            left = left[~fits]
    on_grid = np.ones(len(values), bool)
    on_grid[left] = False
    return scales, levels, on_grid


def _of_smallest(
    values: NDArray[np.float32], levels: NDArray[np.float32], step: NDArray[np.float32], kind: np.dtype[Any]
) -> NDArray[np.float32]:
    """The scale that gives the smallest value."""
    return step


def _in_the_middle(
    values: NDArray[np.float32], levels: NDArray[np.float32], step: NDArray[np.float32], kind: np.dtype[Any]
) -> NDArray[np.float32]:
    """The middle of the scales whose products with the levels round to all values."""
    fraction, exponent = np.frexp(np.abs(values))
    half = np.ldexp(np.float32(1), exponent - _MANTISSA_BITS[kind.name] - 2)
    below = np.where(fraction == 0.5, half / 2, half)  # numbers below a power of two are closer to each other
    levels = np.abs(levels)
    least = np.where(levels > 0, (np.abs(values) - below) / levels, np.float32(0)).max(axis=1)
    most = np.where(levels > 0, (np.abs(values) + half) / levels, np.float32(np.inf)).min(axis=1)
    middle: NDArray[np.float32] = (least + most) / np.float32(2)
    return middle


def _is_stored_floats(expr: TensorExpr) -> bool:
    """Whether all that a tensor is made of are stored weights of a float type."""
    children = tuple(expr.children())
    if children:
        return all(map(_is_stored_floats, children))
    return isinstance(expr, Stored) and expr.dtype.is_float
