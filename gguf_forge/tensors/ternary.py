"""BitNet's weights: each matrix rounded to -1, 0 and 1 times the mean of its absolute values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np

from gguf_forge.tensors.arithmetic import Elementwise, Floats
from gguf_forge.tensors.cascade import cascade_sum
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.tensor_type import F32

# Bytes of float32 that are read at a time for the mean of a matrix.
_PIECE_BYTES = 1 << 17
_LEAST = np.float32(1e-5)


@dataclass(frozen=True)
class Ternary(Elementwise):
    """Each value rounded to a whole multiple, from -1 to 1, of the mean of all absolute values.

    The first rows that are taken read the whole tensor once for its mean, piece by piece; the mean is kept. Source:
    `weight_quant` of BitNet, as the reference follows it: it divides by the reciprocal of the mean.
    """

    def compute(self, x: Floats) -> Floats:
        inverse = self._inverse()
        x *= inverse
        np.rint(x, out=x)
        np.clip(x, -1, 1, out=x)
        x /= inverse
        return x

    def _inverse(self) -> Floats:
        """One divided by the mean, as a single value. The first thread computes it, and the others wait for it."""
        kept = self.__dict__
        with kept.setdefault("_lock", Lock()):
            if "_mean" not in kept:
                count = self.of.n_rows * self.of.shape[-1]
                kept["_mean"] = cascade_sum(self._absolute(), count) / np.float32(count)
            inverse: Floats = np.reciprocal(np.maximum(kept["_mean"], _LEAST))
            return inverse

    def _absolute(self) -> Iterator[Floats]:
        step = self._piece_rows
        for start in range(0, self.of.n_rows, step):
            rows = self.of.rows(start, min(start + step, self.of.n_rows))
            yield np.abs(rows.astype(np.float32)).reshape(-1)

    @property
    def _piece_rows(self) -> int:
        return min(self.of.n_rows, max(1, _PIECE_BYTES // F32.row_bytes(self.shape[-1])))

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        piece = self.of.working_set(self._piece_rows) + 6 * self._piece_rows * F32.row_bytes(self.shape[-1])
        return super().working_set(n_rows, scattered=scattered) + piece

    def inverse(self, value: TensorExpr) -> TensorExpr:
        """The inverse gives the rounded weights, because a file does not hold what rounding removed."""
        return value

    @property
    def words(self) -> str:
        return "rounded to -1, 0 and 1 times its mean"

    @property
    def omission(self) -> str:
        return "without rounding to -1, 0 and 1"
