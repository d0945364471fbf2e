"""Symmetric and asymmetric ladders, block size and outliers, shown on weights of the file at hand.

The four-bit types stand for all others here: their ladders have few enough levels to be drawn.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.kernels.binding import quantizable_types, types_needing_importance
from gguf_forge.kernels.rows import dequantize, quantize
from gguf_forge.toolbox.report.data import Alternative, BlockSize, Lessons, Outlier, Rounding, SizeCost, Symmetry
from gguf_forge.toolbox.report.ladder import ladders
from gguf_forge.types.rows import FloatRows
from gguf_forge.types.tensor_type import TensorType

_SMALL, _LARGE = 32, 256
_LADDERS = ("Q4_0", "Q4_1", "Q4_K", "IQ4_NL")
_ALTERNATIVES = (
    *(
        "IQ1_S",
        "IQ1_M",
        "IQ2_XXS",
        "IQ2_XS",
        "IQ2_S",
        "Q2_K",
        "IQ3_XXS",
        "Q3_K",
        "IQ3_S",
        "IQ4_XS",
        "IQ4_NL",
        "Q4_0",
        "Q4_K",
        "Q4_1",
        "Q5_0",
        "Q5_K",
        "Q5_1",
        "Q6_K",
        "Q8_0",
    ),
    "MXFP4",
)
_SIZES = (16, 32, 64, 128, 256)
_CLOUD = 400
# A block leans to one side if the middle of its range is at least this far from zero, in halves of the range.
_LEAN = 0.25
_LARGEST = 60_000.0


@dataclass(frozen=True)
class SampledRows:
    """Some rows of a tensor, before rounding: `values` (rows, row length), `rows` their numbers."""

    tensor: str
    rows: NDArray[np.int64]
    values: FloatRows

    @property
    def rms(self) -> float:
        """Root of the mean square of the weights, by which the errors of blocks are divided."""
        return float(np.sqrt(np.square(self.values, dtype=np.float64).mean()))

    @property
    def is_usable(self) -> bool:
        """Whether the weights can be rounded to every type. Scales are 16-bit floats, whose largest number is 65504."""
        return self.values.shape[1] % _SMALL == 0 and 0 < float(np.abs(self.values).max()) <= _LARGEST

    def place(self, at: int, size: int) -> tuple[int, int]:
        """Row and block of the `at`-th run of `size` values."""
        row, block = divmod(at, self.values.shape[1] // size)
        return int(self.rows[row]), block


def make_lessons(pool: Sequence[SampledRows], *, of_source: bool, finest: float, own: Set[str]) -> Lessons | None:
    """Every lesson that these weights are good for; None if they are good for none.

    Args:
        pool: Rows of some matrices; those whose length is a multiple of 32 count.
        of_source: Whether the weights are those from before any rounding.
        finest: Bits for each weight. Types of as many bits or more would lose nothing and are left out.
        own: The file's own types.
    """
    usable = [weights for weights in pool if weights.is_usable]
    if not usable:
        return None
    return Lessons(
        of_source=of_source,
        tensors=tuple(weights.tensor for weights in usable),
        sampled=sum(weights.values.size for weights in usable),
        symmetry=_symmetry(usable),
        block_size=_block_size(usable),
        outlier=_outlier(usable),
        alternatives=_alternatives(usable, finest, own),
    )


def block_rmse(weights: FloatRows, stored: FloatRows) -> NDArray[np.float64]:
    """RMSE of each row.

    Example:
        >>> block_rmse(np.array([[1, 2], [3, 4]], np.float32), np.array([[1, 2], [4, 5]], np.float32)).tolist()
        [0.0, 1.0]
    """
    rmse: NDArray[np.float64] = np.sqrt(np.square(weights - stored, dtype=np.float64).mean(axis=-1))
    return rmse


def _overall(pairs: Sequence[tuple[FloatRows, FloatRows]]) -> float:
    noise = sum(float(np.square(weights - stored, dtype=np.float64).sum()) for weights, stored in pairs)
    power = sum(float(np.square(weights, dtype=np.float64).sum()) for weights, _ in pairs)
    return float(np.sqrt(noise / power))


def _rounded(values: FloatRows, tensor_type: TensorType) -> FloatRows:
    """The values as the type stores them. For a type that needs importance, every column counts alike."""
    alike = np.ones(values.shape[1], np.float32) if tensor_type in types_needing_importance() else None
    return dequantize(quantize(values, tensor_type, importance=alike), tensor_type)


def _fits(weights: SampledRows, tensor_type: TensorType) -> bool:
    return bool(weights.values.shape[1] % tensor_type.block_elements == 0)


def _rounding(weights: SampledRows, at: int, tensor_type: TensorType) -> Rounding:
    """The `at`-th run of 32 values, as its row would be stored in `tensor_type`."""
    row, block = divmod(at, weights.values.shape[1] // _SMALL)
    values = weights.values[row : row + 1]
    packed = quantize(values, tensor_type)
    part = slice(block * _SMALL, (block + 1) * _SMALL)
    stored, original = dequantize(packed, tensor_type)[0, part], values[0, part]
    whole, inside = divmod(block * _SMALL, tensor_type.block_elements)
    ladder = ladders(packed.reshape(-1, tensor_type.block_bytes), tensor_type)
    levels = ladder.levels(whole, inside // ladder.scheme.values_per_scale)
    return _as_rounding(tensor_type, levels, stored, original, weights.rms)


def _as_rounding(
    tensor_type: TensorType, levels: FloatRows, stored: FloatRows, original: FloatRows, rms: float
) -> Rounding:
    return Rounding(
        type=tensor_type.name,
        bits_per_weight=8 * tensor_type.block_bytes / tensor_type.block_elements,
        levels=tuple(np.sort(levels).tolist()),
        stored=tuple(stored.tolist()),
        relative=float(block_rmse(original, stored)) / rms,
        used=len(np.unique(stored)),
    )


def _symmetry(pool: Sequence[SampledRows]) -> Symmetry | None:
    """The block that an offset helps most. It leans to one side, is not small, and is not dominated by one weight."""
    found: tuple[float, SampledRows, int] | None = None
    better = blocks = 0
    pairs: dict[str, list[tuple[FloatRows, FloatRows]]] = {}
    for weights in pool:
        original = weights.values.reshape(-1, _SMALL)
        errors = []
        for name in _LADDERS:
            tensor_type = TensorType.named(name)
            if _fits(weights, tensor_type):
                stored = _rounded(weights.values, tensor_type).reshape(-1, _SMALL)
                pairs.setdefault(name, []).append((original, stored))
                errors.append(block_rmse(original, stored))
        before, after = errors[0], errors[1]
        power, crests = np.square(original).mean(axis=1), _crests(original)
        low, high = original.min(axis=1), original.max(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            lean = np.abs(high + low) / (high - low)
            gain = before / after
        is_ordinary = (power >= np.median(power) / 4) & (crests <= np.percentile(crests, 75)) & (lean >= _LEAN)
        gain = np.where(is_ordinary & (after > 0), gain, 0)
        better += int((before > after).sum())
        blocks += len(original)
        best = int(gain.argmax())
        if found is None or gain[best] > found[0]:
            found = float(gain[best]), weights, best
    if found is None or found[0] <= 1:
        return None
    _, weights, at = found
    tensor_types = [TensorType.named(name) for name in _LADDERS if _fits(weights, TensorType.named(name))]
    row, block = weights.place(at, _SMALL)
    return Symmetry(
        tensor=weights.tensor,
        row=row,
        block=block,
        weights=tuple(weights.values.reshape(-1, _SMALL)[at].tolist()),
        roundings=tuple(_rounding(weights, at, tensor_type) for tensor_type in tensor_types),
        blocks=blocks,
        share_better=better / blocks,
        overall={name: _overall(some) for name, some in pairs.items()},
    )


def plainly_rounded(values: FloatRows) -> FloatRows:
    """Each row to 16 equal steps from its least to its greatest value.

    Example:
        >>> plainly_rounded(np.array([[0, 7, 15.4, 30]], np.float32)).tolist()
        [[0.0, 8.0, 16.0, 30.0]]
    """
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    step = (high - low) / np.float32(15)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.nan_to_num(np.rint((values - low) / step))
    rounded: FloatRows = low + step * codes
    return rounded


def _plain_levels(values: FloatRows) -> tuple[float, ...]:
    return tuple(np.linspace(float(values.min()), float(values.max()), 16).tolist())


def _block_size(pool: Sequence[SampledRows]) -> BlockSize | None:
    """A run of 256 weights that gains much, but not extraordinarily much, from ladders of its own for each 32."""
    wide = [weights for weights in pool if weights.values.shape[1] % _LARGE == 0]
    if not wide:
        return None
    costs = []
    for size in _SIZES:
        pairs = [(w.values.reshape(-1, size), plainly_rounded(w.values.reshape(-1, size))) for w in wide]
        costs.append(SizeCost(size, 4 + 32 / size, _overall(pairs)))
    weights = wide[0]
    runs = weights.values.reshape(-1, _LARGE)
    large = plainly_rounded(runs)
    small = plainly_rounded(runs.reshape(-1, _SMALL)).reshape(runs.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.nan_to_num(block_rmse(runs, large) / block_rmse(runs, small))
    at = int(np.argsort(gain)[int(0.9 * (len(gain) - 1))])
    row, block = weights.place(at, _LARGE)
    return BlockSize(
        tensor=weights.tensor,
        row=row,
        first=block * _LARGE,
        weights=tuple(runs[at].tolist()),
        small=tuple(_plain_levels(part) for part in runs[at].reshape(-1, _SMALL)),
        large=_plain_levels(runs[at]),
        relative_small=float(block_rmse(runs[at], small[at])) / weights.rms,
        relative_large=float(block_rmse(runs[at], large[at])) / weights.rms,
        costs=tuple(costs),
        sampled=sum(w.values.size for w in wide),
    )


def _crests(blocks: FloatRows) -> NDArray[np.float64]:
    """The greatest magnitude of each block in RMS of its other values; 0 where those are zero."""
    squares = np.square(blocks, dtype=np.float64)
    greatest = squares.max(axis=1)
    others = (squares.sum(axis=1) - greatest) / (blocks.shape[1] - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        crests: NDArray[np.float64] = np.where(others > 0, np.sqrt(greatest / others), 0)
    return crests


def _outlier(pool: Sequence[SampledRows]) -> Outlier | None:
    tensor_type = TensorType.named("Q4_0")
    weights = max(pool, key=lambda some: float(_crests(some.values.reshape(-1, _SMALL)).max()))
    blocks = weights.values.reshape(-1, _SMALL)
    crests = _crests(blocks)
    at = int(crests.argmax())
    if crests[at] <= 0:
        return None
    block = blocks[at]
    peak = int(np.abs(block).argmax())
    without = block.copy()
    without[peak] = 0
    row, number = weights.place(at, _SMALL)
    some = blocks[np.linspace(0, len(blocks) - 1, min(_CLOUD, len(blocks))).astype(np.int64)]
    errors = block_rmse(some, _rounded(some, tensor_type)) / weights.rms
    heights = np.abs(some).max(axis=1).astype(np.float64) / weights.rms
    return Outlier(
        tensor=weights.tensor,
        row=row,
        block=number,
        weights=tuple(block.tolist()),
        rest=tuple(without.tolist()),
        at=peak,
        ratio=float(crests[at]),
        with_it=_alone(block, tensor_type, weights.rms),
        without=_alone(without, tensor_type, weights.rms),
        cloud=tuple(zip(heights.tolist(), errors.tolist(), strict=True)),
    )


def _alone(block: FloatRows, tensor_type: TensorType, rms: float) -> Rounding:
    packed = quantize(block[None], tensor_type)
    levels = ladders(packed, tensor_type).levels(0, 0)
    return _as_rounding(tensor_type, levels, dequantize(packed, tensor_type)[0], block, rms)


def _alternatives(pool: Sequence[SampledRows], finest: float, own: Set[str]) -> tuple[Alternative, ...]:
    """The usual types and the file's own, over the rows that are multiples of all their blocks."""
    usable = [weights for weights in pool if weights.values.shape[1] % _LARGE == 0] or list(pool)
    found = []
    for name in {*_ALTERNATIVES, *own}:
        tensor_type = TensorType.named(name)
        can = tensor_type in quantizable_types() and tensor_type.levels is not None
        bits = 8 * tensor_type.block_bytes / tensor_type.block_elements
        if can and bits < finest and all(_fits(weights, tensor_type) for weights in usable):
            error = _overall([(weights.values, _rounded(weights.values, tensor_type)) for weights in usable])
            found.append(Alternative(name, bits, error, tensor_type in types_needing_importance()))
    return tuple(sorted(found, key=lambda one: (one.bits_per_weight, one.relative)))
