"""A vector without its mean, with the bits of torch's `mean`.

float32 sums depend on the order of their terms. Source: `cascade_sum` in torch's SumKernel.cpp, which adds 8 lanes at a
time on every CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32

_LANES, _IN_FLIGHT = 8, 4


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
            mean = (_sum(below[0].astype(np.float32)) / np.float32(below.size)).astype(kind)
            centered: Rows = (below.astype(np.float32) - mean.astype(np.float32)).astype(kind)
        return centered

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        wide = n_rows * F32.row_bytes(self.shape[-1])
        return self.of.working_set(n_rows, scattered=scattered) + 4 * wide

    def inverse(self, value: TensorExpr) -> TensorExpr:
        """The values without their mean, which a router of experts does not see."""
        return value

    @property
    def words(self) -> str:
        return "minus its mean"

    @property
    def omission(self) -> str:
        return "without subtracting its mean"


def _sum(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """All values, added in float32: eight lanes, each by four sums at a time, and what is left over at last."""
    width = _LANES if len(x) >= _LANES else 1
    n_vectors = len(x) // width
    vectors = x[: n_vectors * width].reshape(n_vectors, width)
    n_rounds = n_vectors // _IN_FLIGHT
    sums = _cascade(vectors[: n_rounds * _IN_FLIGHT].reshape(n_rounds, _IN_FLIGHT, width))
    for vector in vectors[n_rounds * _IN_FLIGHT :]:
        sums[0] += vector
    lanes = sums[0]
    for others in sums[1:]:
        lanes = lanes + others
    total = np.zeros(1, np.float32)
    for value in (*x[n_vectors * width :], *lanes):
        total += value
    return total


def _cascade(rounds: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum over the first axis by partial sums of powers of two, which keeps small values beside a large sum."""
    power = max(4, (len(rounds) - 1).bit_length() // 4)
    step, done = 1 << power, 0
    levels = np.zeros((4, *rounds.shape[1:]), np.float32)
    while done + step <= len(rounds):
        for values in rounds[done : done + step]:
            levels[0] += values
        done += step
        for level in range(1, 4):
            levels[level] += levels[level - 1]
            levels[level - 1] = 0
            if done & ((step - 1) << (level * power)):
                break
    for values in rounds[done:]:
        levels[0] += values
    for level in range(1, 4):
        levels[0] += levels[level]
    result: NDArray[np.float32] = levels[0]
    return result
