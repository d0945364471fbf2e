"""BitNet's weights: each matrix rounded to -1, 0 and 1 times the mean of its absolute values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.tensors.arithmetic import Elementwise, Floats
from gguf_forge.tensors.cascade import LANES, cascade_sum
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32

Doubles = NDArray[np.float64]

# Bytes of float32 that are read at a time for a figure of the whole matrix.
_PIECE_BYTES = 1 << 17
_LEAST = np.float32(1e-5)
# How often a matrix is read to find weights whose mean is the very one.
_MOST_PASSES = 4


@dataclass(frozen=True)
class _ByFigure(Elementwise):
    """An operation on each value that needs a figure of the whole tensor.

    The first rows that are taken read the whole tensor, piece by piece; the figure is kept. The first thread computes
    it, and the others wait for it.
    """

    @abstractmethod
    def _measured(self) -> NDArray[Any]:
        """The figure, of one number or several."""

    def _figure(self) -> NDArray[Any]:
        kept = self.__dict__
        with kept.setdefault("_lock", Lock()):
            if "_kept" not in kept:
                kept["_kept"] = self._measured()
            figure: NDArray[Any] = kept["_kept"]
            return figure

    @property
    def _count(self) -> int:
        return self.of.n_rows * self.of.shape[-1]

    def _pieces(self) -> Iterator[tuple[int, Floats]]:
        """The absolute values, some at a time, with the number of the first one."""
        step = self._piece_rows
        for start in range(0, self.of.n_rows, step):
            rows = self.of.rows(start, min(start + step, self.of.n_rows))
            yield start * self.of.shape[-1], np.abs(rows.astype(np.float32)).reshape(-1)

    def reused(self) -> Iterator[TensorExpr]:
        yield self.of

    @property
    def _piece_rows(self) -> int:
        return min(self.of.n_rows, max(1, _PIECE_BYTES // F32.row_bytes(self.shape[-1])))

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        piece = self.of.working_set(self._piece_rows) + 6 * self._piece_rows * F32.row_bytes(self.shape[-1])
        return super().working_set(n_rows, scattered=scattered) + piece


@dataclass(frozen=True)
class Ternary(_ByFigure):
    """Each value rounded to a whole multiple, from -1 to 1, of the mean of all absolute values.

    Source: `weight_quant` of BitNet, as the reference follows it: it divides by the reciprocal of the mean.
    """

    def compute(self, x: Floats) -> Floats:
        inverse = self._figure()
        x *= inverse
        np.rint(x, out=x)
        np.clip(x, -1, 1, out=x)
        x /= inverse
        return x

    def _measured(self) -> Floats:
        total = cascade_sum((piece for _, piece in self._pieces()), self._count)
        inverse: Floats = _reciprocal(total / np.float32(self._count))
        return inverse

    def inverse(self, value: TensorExpr) -> TensorExpr:
        """What rounding removed, a file does not hold. The inverse gives weights that are rounded to the same."""
        return Unrounded(value)

    @property
    def words(self) -> str:
        return "rounded to -1, 0 and 1 times its mean"

    @property
    def omission(self) -> str:
        return "without rounding to -1, 0 and 1"


@dataclass(frozen=True)
class Unrounded(_ByFigure):
    """Weights that `Ternary` rounds to the values of a tensor: all that are not 0 are so large that their mean fits.

    Sums of equal values are rounded as well, so one of the values makes up for the rest. A tensor whose values are not
    0 and one number with both signs, such as one that was quantized otherwise, stays.
    """

    dtype = F32

    def take(self, rows: RowNumbers) -> Rows:
        taken, (size, own, row, column) = super().take(rows), self._figure()
        if size:
            taken[rows == row, int(column)] = np.copysign(own, taken[rows == row, int(column)])
        return taken

    def compute(self, x: Floats) -> Floats:
        size = np.float32(self._figure()[0])
        return np.sign(x) * size if size else x

    def _measured(self) -> Doubles:
        """The size of the values, 0 if they stay; that of the one that makes up for sums; and its row and column."""
        number, n_others, at = np.float32(0), 0, -1
        for start, piece in self._pieces():
            largest = piece.max(initial=0)
            is_other = not np.isin(piece, (0, largest)).all() or (largest and number not in (0, largest))
            if is_other or not np.isfinite(largest):
                return np.zeros(4)
            number = max(number, largest)
            others = start + np.flatnonzero(piece)
            n_others += len(others)
            # What is added to the last lane reaches the sum through the fewest additions.
            in_last_lane = others[others % LANES == LANES - 1] if at < 0 else others[:0]
            at = int(in_last_lane[0]) if len(in_last_lane) else at
        mean = _mean_of(number)
        size = np.float32(mean * self._count / max(n_others, 1))
        own = float(size)
        for _ in range(_MOST_PASSES):
            total = cascade_sum(self._sized(size, np.float32(own), at), self._count)
            if np.reciprocal(_reciprocal(total / np.float32(self._count))) == number:
                break
            own += mean * self._count - float(total[0])
        return np.array((size, own, *divmod(at, self.shape[-1])))

    def _sized(self, size: np.float32, own: np.float32, at: int) -> Iterator[Floats]:
        for start, piece in self._pieces():
            sized = np.where(piece, size, np.float32(0))
            if start <= at < start + len(piece):
                sized[at - start] = own
            yield sized

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Ternary(value)

    @property
    def words(self) -> str:
        return "as it was before it was rounded to -1, 0 and 1"


def _mean_of(number: np.float32) -> float:
    """The mean of weights that are rounded to a number, or one next to it where there is none."""
    near = (number, *(np.nextafter(number, np.float32(end)) for end in (0, np.inf)))
    return float(next((mean for mean in near if np.reciprocal(_reciprocal(mean)) == number), number))


def _reciprocal(mean: Floats | np.float32) -> Any:
    return np.reciprocal(np.maximum(mean, _LEAST))
