"""A vector without its mean, with the bits of torch's `mean`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gguf_forge.errors import InputError
from gguf_forge.tensors.cascade import cascade_sum
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32


@dataclass(frozen=True)
class Centered(Unary):
    """Each value of a vector minus the mean of all, rounded to the vector's own type."""

    def __post_init__(self) -> None:
        if len(self.of.shape) != 1:
            raise InputError(f"shape {self.of.shape} is not a vector")

    def take(self, rows: RowNumbers) -> Rows:
        below = self.of.take(rows)
        kind = below.dtype
        with np.errstate(all="ignore"):  # what is not finite is told when it is packed
            mean = (cascade_sum([below[0].astype(np.float32)], below.size) / np.float32(below.size)).astype(kind)
            centered: Rows = (below.astype(np.float32) - mean.astype(np.float32)).astype(kind)
        return centered

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        wide = n_rows * F32.row_bytes(self.shape[-1])
        return self.of.working_set(n_rows, scattered=scattered) + 4 * wide

    def inverse(self, value: TensorExpr) -> TensorExpr:
        """The inverse gives the values without their mean back, because a router of experts ignores the mean."""
        return value

    @property
    def words(self) -> str:
        return "minus its mean"

    @property
    def omission(self) -> str:
        return "without subtracting its mean"
