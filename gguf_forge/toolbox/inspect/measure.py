"""How the values of a tensor are spread, and how far two tensors are apart: in one pass, a few rows at a time.

Sums are of float64, and added in the order of the rows: the results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gguf_forge.engine.threads import Progress
from gguf_forge.errors import UsageError
from gguf_forge.kernels.rows import as_float32
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.toolbox.inspect.rows_of import in_order, row_ranges
from gguf_forge.types.blocks import levels_of

Doubles = NDArray[np.float64]

# For types without blocks: this many values count as a block when the block with the greatest error is looked for.
_STRETCH = 32
# Values in one step. Their float64 arrays are small enough that the allocator reuses their memory. Larger arrays would
# get new pages from the system each time, which takes longer than the sums.
_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Spread:
    """The values of a tensor. All but `count` and `nonfinite` speak of those that are finite.

    Attributes:
        count: How many values there are.
        nonfinite: How many are infinite or NaN.
        minimum, maximum, mean: 0 if no value is finite.
        deviation: Standard deviation.
        zeros: How many are zero.
        histogram: How many values are in each of the bins asked for: below the first edge, between each two edges
            (the lower one included), and from the last edge on. Empty if no edges were given.
    """

    count: int
    nonfinite: int
    minimum: float
    maximum: float
    mean: float
    deviation: float
    zeros: int
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class WorstBlock:
    """Where the error is greatest: a block of a row, both from 0, and its root mean square error."""

    row: int
    block: int
    rmse: float


@dataclass(frozen=True)
class Distance:
    """How far a tensor is from a reference.

    Attributes:
        count: How many pairs of values there are.
        nonfinite: Pairs of which one is infinite or NaN; only their number is told, the rest speaks of the others.
        differing: Finite pairs that aren't equal.
        rmse: Root of the mean square error.
        rms: Root of the mean square of the reference.
        bias: Mean error.
        max_error: The greatest error, without its sign.
        max_error_at: The row and column where it is; None without an error.
        cosine: Of the angle between the two; 1 if both are zero everywhere, 0 if one is.
        worst: The block of the greatest error; None without an error.
    """

    count: int
    nonfinite: int
    differing: int
    rmse: float
    rms: float
    bias: float
    max_error: float
    max_error_at: tuple[int, int] | None
    cosine: float
    worst: WorstBlock | None

    @property
    def relative(self) -> float | None:
        """The error as a share of the values: rmse / rms; None where the reference is zero and the other is not."""
        return self.rmse / self.rms if self.rms else None if self.rmse else 0.0

    @property
    def worst_relative(self) -> float | None:
        """The error of the worst block: its RMSE, divided by the RMS of the whole reference; None where that is zero,
        or where there is no error."""
        return self.worst.rmse / self.rms if self.worst and self.rms else None

    @property
    def snr(self) -> float | None:
        """Signal to noise in decibels; None if there is no noise, or no signal."""
        return 20 * math.log10(self.rms / self.rmse) if self.rmse and self.rms else None


@dataclass(frozen=True)
class OverallDistance:
    """How far tensors are from their references, all values taken together.

    Attributes:
        relative: The error as a share of the values: root mean squares of all; None where all references are zero.
        snr: Signal to noise in decibels; None if there is no noise, or no signal.
    """

    relative: float | None
    snr: float | None


def overall(distances: Sequence[Distance]) -> OverallDistance:
    """The distances of several tensors as one, each value counted once.

    Example:
        >>> overall([]).relative
        0.0
    """
    noise = sum(one.rmse**2 * (one.count - one.nonfinite) for one in distances)
    power = sum(one.rms**2 * (one.count - one.nonfinite) for one in distances)
    relative = math.sqrt(noise / power) if power else None if noise else 0.0
    return OverallDistance(relative, -20 * math.log10(relative) if relative else None)


@dataclass(frozen=True)
class LevelUse:
    """How often each level of a packed type is used.

    Attributes:
        lowest, highest: The least and the greatest level of the type, as stored.
        counts: Of each level from the lowest to the highest; a level outside (of a hostile file) is counted at the end.
    """

    lowest: int
    highest: int
    counts: tuple[int, ...]

    @property
    def at_extremes(self) -> float:
        """The share of values at the lowest or the highest level: many, where outliers are cut off."""
        return (self.counts[0] + self.counts[-1]) / max(1, sum(self.counts))


def spread_of(
    expr: TensorExpr,
    *,
    edges: Sequence[float] = (),
    threads: int | None = None,
    progress: Progress = lambda n_values: None,
) -> Spread:
    """How the values of a tensor are spread.

    Args:
        expr: The tensor; read once.
        edges: Of the histogram's bins, rising.
        threads: Defaults to the processors this process may use.
        progress: Told how many values were read.

    Raises:
        UnsupportedError: no kernel unpacks the tensor's type.
        InputError: the tensor can't be read.

    Example:
        >>> from gguf_forge.tensors.stored import Constant
        >>> spread_of(Constant(np.array([[0, 1], [2, 3]], np.float32)), edges=[1, 3]).histogram
        (1, 2, 1)
    """
    bins = np.asarray(edges, np.float64)
    if (np.diff(bins) <= 0).any():
        raise UsageError("the edges of a histogram must rise")
    total = _SpreadSums.zero(len(bins) + 1 if len(bins) else 0)
    for part in in_order(partial(_spread, expr, bins), row_ranges(expr), threads=threads):
        total = total.plus(part)
        progress(part.count)
    return Spread(
        total.count,
        total.nonfinite,
        total.minimum if math.isfinite(total.minimum) else 0.0,
        total.maximum if math.isfinite(total.maximum) else 0.0,
        total.mean,
        math.sqrt(total.centred / max(1, total.finite)),
        total.zeros,
        tuple(total.histogram.tolist()),
    )


@dataclass(frozen=True)
class _SpreadSums:
    """What is known of some values. `centred` is the sum of their squared distances from their own mean: the mean of
    squares less the square of the mean loses all digits where values are large and close to each other.

    Source of how two such sums become one: Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances (1979).
    """

    count: int
    nonfinite: int
    minimum: float
    maximum: float
    sum: float
    centred: float
    zeros: int
    histogram: NDArray[np.int64]

    @classmethod
    def zero(cls, bins: int) -> _SpreadSums:
        return cls(0, 0, math.inf, -math.inf, 0.0, 0.0, 0, np.zeros(bins, np.int64))

    @property
    def finite(self) -> int:
        return self.count - self.nonfinite

    @property
    def mean(self) -> float:
        return self.sum / max(1, self.finite)

    def plus(self, other: _SpreadSums) -> _SpreadSums:
        apart = (other.mean - self.mean) ** 2 * self.finite * other.finite / max(1, self.finite + other.finite)
        return _SpreadSums(
            self.count + other.count,
            self.nonfinite + other.nonfinite,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.sum + other.sum,
            self.centred + other.centred + apart,
            self.zeros + other.zeros,
            self.histogram + other.histogram,
        )


def _spread(expr: TensorExpr, edges: Doubles, rows: tuple[int, int]) -> _SpreadSums:
    values = as_float32(expr.rows(*rows), expr.dtype).reshape(-1)
    finite = values[np.isfinite(values)].astype(np.float64)
    bins = np.bincount(np.searchsorted(edges, finite, "right"), minlength=len(edges) + 1) if len(edges) else edges
    return _SpreadSums(
        len(values),
        len(values) - len(finite),
        finite.min(initial=math.inf),
        finite.max(initial=-math.inf),
        float(finite.sum()),
        float(finite.var()) * len(finite) if len(finite) else 0.0,
        int(np.count_nonzero(finite == 0)),
        bins.astype(np.int64),
    )


def distance_between(
    reference: TensorExpr,
    measured: TensorExpr,
    *,
    block: int | None = None,
    threads: int | None = None,
    progress: Progress = lambda n_values: None,
) -> Distance:
    """How far a tensor is from a reference, value by value.

    Args:
        reference: What it should be, such as the tensor of the checkpoint.
        measured: What it is, of the same shape. Both are read once.
        block: Values of a block, for the worst one; None for the blocks of the measured tensor's type.
        threads: Defaults to the processors this process may use.
        progress: Told how many values were compared.

    Raises:
        UsageError: the shapes differ.
        UnsupportedError: no kernel unpacks one of the types.
        InputError: a tensor can't be read.

    Example:
        >>> from gguf_forge.tensors.stored import Constant
        >>> one = Constant(np.array([[3.0, 4.0]], np.float32))
        >>> other = Constant(np.array([[3.0, 5.0]], np.float32))
        >>> distance_between(one, other).max_error_at
        (0, 1)
    """
    if (reference.n_rows, reference.shape[-1]) != (measured.n_rows, measured.shape[-1]):
        raise UsageError(f"tensors of shapes {reference.shape} and {measured.shape} cannot be compared")
    n_per_row = measured.shape[-1]
    wanted = block or (measured.dtype.block_elements if measured.dtype.block_elements > 1 else _STRETCH)
    size = wanted if n_per_row % wanted == 0 else n_per_row
    total = DistanceSums()
    columnwise = measured if measured.is_columnwise else reference

    def task(rows: tuple[int, int]) -> DistanceSums:
        expected = as_float32(reference.rows(*rows), reference.dtype)
        found = as_float32(measured.rows(*rows), measured.dtype)
        return distance_sums(expected, found, size, first_row=rows[0])

    for part in in_order(task, row_ranges(columnwise), threads=threads):
        total = total.plus(part)
        progress(part.count)
    return total.distance()


@dataclass(frozen=True)
class DistanceSums:
    """The sums over ranges of rows that a `Distance` is computed from."""

    count: int = 0
    nonfinite: int = 0
    differing: int = 0
    errors: float = 0.0
    error_squares: float = 0.0
    reference_squares: float = 0.0
    measured_squares: float = 0.0
    products: float = 0.0
    max_error: float = 0.0
    max_error_at: tuple[int, int] | None = None
    worst: WorstBlock | None = None

    def plus(self, other: DistanceSums) -> DistanceSums:
        """Both together; of equal errors, the earlier one counts as the greatest."""
        greatest = other if other.max_error > self.max_error else self
        is_worse = other.worst is not None and (self.worst is None or other.worst.rmse > self.worst.rmse)
        return DistanceSums(
            self.count + other.count,
            self.nonfinite + other.nonfinite,
            self.differing + other.differing,
            self.errors + other.errors,
            self.error_squares + other.error_squares,
            self.reference_squares + other.reference_squares,
            self.measured_squares + other.measured_squares,
            self.products + other.products,
            greatest.max_error,
            greatest.max_error_at,
            other.worst if is_worse else self.worst,
        )

    def distance(self) -> Distance:
        """The distance that the sums come to."""
        n = max(1, self.count - self.nonfinite)
        lengths = math.sqrt(self.reference_squares) * math.sqrt(self.measured_squares)
        same = self.reference_squares == self.measured_squares == 0 or not self.differing
        return Distance(
            self.count,
            self.nonfinite,
            self.differing,
            math.sqrt(self.error_squares / n),
            math.sqrt(self.reference_squares / n),
            self.errors / n,
            self.max_error,
            self.max_error_at,
            1.0 if same else min(1.0, self.products / lengths) if lengths else 0.0,
            self.worst,
        )


def distance_sums(
    expected: NDArray[np.float32], found: NDArray[np.float32], block: int, *, first_row: int = 0
) -> DistanceSums:
    """The sums over some rows.

    Args:
        expected, found: (rows, n); n is a multiple of `block`.
        block: Values of a block.
        first_row: The number of the first row, for the places named.
    """
    n_per_row = expected.shape[1]
    step = max(1, _AT_ONCE // block) * block
    expected, found = expected.reshape(-1), found.reshape(-1)
    total = DistanceSums()
    for start in range(0, len(expected), step):
        place = _ValueRun(first_row, n_per_row, start)
        total = total.plus(_sums_of_blocks(expected[start : start + step], found[start : start + step], block, place))
    return total


class _ValueRun(NamedTuple):
    """The place of values in a tensor: they begin at value `start`, in rows of `n_per_row` values."""

    first_row: int
    n_per_row: int
    start: int

    def of(self, at: int) -> tuple[int, int]:
        """Row and column."""
        row, column = divmod(self.start + at, self.n_per_row)
        return self.first_row + row, column


def _sums_of_blocks(
    expected: NDArray[np.float32], found: NDArray[np.float32], block: int, place: _ValueRun
) -> DistanceSums:
    with np.errstate(invalid="ignore"):
        a, b = expected.astype(np.float64), found.astype(np.float64)
        error = b - a
    squares = _dot(error, error)
    nonfinite = 0
    if not math.isfinite(squares):
        bad = ~np.isfinite(error)
        nonfinite = int(np.count_nonzero(bad))
        a[bad] = b[bad] = error[bad] = 0
        squares = _dot(error, error)
    max_error_at = worst = None
    max_error = 0.0
    if squares:
        at = int(np.argmax(np.abs(error)))
        max_error, max_error_at = float(abs(error[at])), place.of(at)
        blocks = error.reshape(-1, block)
        by_block = np.einsum("ij,ij->i", blocks, blocks)
        worst_at = int(np.argmax(by_block))
        row, column = place.of(worst_at * block)
        worst = WorstBlock(row, column // block, math.sqrt(by_block[worst_at] / block))
    return DistanceSums(
        len(error),
        nonfinite,
        int(np.count_nonzero(error)),
        float(error.sum()),
        squares,
        _dot(a, a),
        _dot(b, b),
        _dot(a, b),
        max_error,
        max_error_at,
        worst,
    )


def _dot(a: Doubles, b: Doubles) -> float:
    # This is not `np.dot`, because BLAS has its own threads, and their number changes the order of additions.
    return float(np.einsum("i,i->", a, b))


def level_use(
    expr: TensorExpr, *, threads: int | None = None, progress: Progress = lambda n_values: None
) -> LevelUse | None:
    """How often each level of a packed tensor is used; None for types without levels.

    Args:
        expr: The tensor; read once.
        threads: Defaults to the processors this process may use.
        progress: Told how many values were read.

    Raises:
        InputError: the tensor can't be read.
    """
    scheme = expr.dtype.levels
    if scheme is None or scheme.is_grid:
        return None
    lowest, highest = scheme.lowest, scheme.highest

    def task(rows: tuple[int, int]) -> NDArray[np.int64]:
        levels = levels_of(expr.rows(*rows), expr.dtype)
        if levels is None:
            raise UsageError(f"{expr.dtype} has no levels")
        return np.bincount(np.clip(levels.reshape(-1), lowest, highest) - lowest, minlength=highest - lowest + 1)

    total = np.zeros(highest - lowest + 1, np.int64)
    for part in in_order(task, row_ranges(expr), threads=threads):
        total += part
        progress(int(part.sum()))
    return LevelUse(lowest, highest, tuple(total.tolist()))
