"""A vector without its mean, with the bits of torch's `mean`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gguf_forge.errors import InputError
from gguf_forge.tensors.cascade import cascade_sum
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32

# The means that are tried for a vector that has none any more.
_MEANS = (0.0, *(sign * odd * 2.0**power for odd in range(1, 32, 2) for power in range(-24, 4) for sign in (1, -1)))


@dataclass(frozen=True)
class Centered(Unary):
    """Each value of a vector minus the mean of all, rounded to the vector's own type."""

    def __post_init__(self) -> None:
        if len(self.of.shape) != 1:
            raise InputError(f"shape {self.of.shape} is not a vector")

    def take(self, rows: RowNumbers) -> Rows:
        return _centered(self.of.take(rows))

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        wide = n_rows * F32.row_bytes(self.shape[-1])
        return self.of.working_set(n_rows, scattered=scattered) + 4 * wide

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Uncentered(value)

    @property
    def words(self) -> str:
        return "minus its mean"

    @property
    def omission(self) -> str:
        return "without subtracting its mean"


@dataclass(frozen=True)
class Uncentered(Unary):
    """A vector that gives this one when its mean is subtracted. A router of experts ignores which mean it is.

    The mean of a centered vector is not 0, because its values are rounded. So a mean is looked for with which
    subtracting it gives the same bits.
    """

    def take(self, rows: RowNumbers) -> Rows:
        centered = self.of.take(rows)
        with np.errstate(all="ignore"):
            for mean in _MEANS:
                tried: Rows = (centered.astype(np.float32) + np.float32(mean)).astype(centered.dtype)
                if np.array_equal(_centered(tried), centered):
                    return tried
        return centered

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        wide = n_rows * F32.row_bytes(self.shape[-1])
        return self.of.working_set(n_rows, scattered=scattered) + 6 * wide

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Centered(value)

    @property
    def words(self) -> str:
        return "plus a mean"


def _centered(x: Rows) -> Rows:
    kind = x.dtype
    with np.errstate(all="ignore"):  # what is not finite is told when it is packed
        mean = (cascade_sum([x[0].astype(np.float32)], x.size) / np.float32(x.size)).astype(kind)
        centered: Rows = (x.astype(np.float32) - mean.astype(np.float32)).astype(kind)
    return centered
