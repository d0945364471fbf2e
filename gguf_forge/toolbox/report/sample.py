"""Some rows of a tensor, spread evenly over it: what levels, portraits and lessons are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.kernels.rows import as_float32
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.toolbox.report.data import BlockView, Levels, Portrait
from gguf_forge.toolbox.report.ladder import Ladders, ladders
from gguf_forge.toolbox.report.lessons import SampledRows, block_rmse
from gguf_forge.types.blocks import unpack_blocks
from gguf_forge.types.rows import FloatRows
from gguf_forge.types.tensor_type import TensorType

SAMPLE_VALUES = 1 << 16
_BINS = 96


@dataclass(frozen=True)
class Sample:
    """Rows of a tensor, as the file and as the source have them.

    Attributes:
        rows: Their numbers.
        packed: As they lie in the file: uint8 blocks, or floats.
        stored: Their values, (rows, row length).
        source: The same rows of the source; None without one.
    """

    tensor: str
    tensor_type: TensorType
    rows: NDArray[np.int64]
    packed: NDArray[np.generic]
    stored: FloatRows
    source: FloatRows | None

    @property
    def weights(self) -> FloatRows:
        """The weights of the source, or without a source the values in the file."""
        return self.stored if self.source is None else self.source

    @property
    def blocks(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.packed).view(np.uint8).reshape(-1, self.tensor_type.block_bytes)

    @property
    def ladders(self) -> Ladders | None:
        return ladders(self.blocks, self.tensor_type) if self.tensor_type.levels else None

    def as_rows(self) -> SampledRows:
        return SampledRows(self.tensor, self.rows, np.ascontiguousarray(self.weights))


def take_sample(
    name: str, stored: TensorExpr, source: TensorExpr | None, rows: NDArray[np.int64] | None = None
) -> Sample:
    """Reads about `SAMPLE_VALUES` values of a tensor, at least one row.

    Args:
        name: Of the tensor.
        stored: The tensor as the file has it, packed or not.
        source: The same tensor in the source, of the same shape, if there is one.
        rows: Which rows, instead of some that are spread evenly.
    """
    if rows is None:
        count = min(stored.n_rows, max(1, SAMPLE_VALUES // stored.shape[-1]))
        rows = np.unique(np.linspace(0, stored.n_rows - 1, count).astype(np.int64))
    packed = np.ascontiguousarray(stored.take(rows))
    return Sample(
        name,
        stored.dtype,
        rows,
        packed,
        as_float32(packed, stored.dtype),
        None if source is None else as_float32(source.take(rows), source.dtype),
    )


def levels_of(sample: Sample) -> Levels | None:
    """How the sampled blocks use their levels; None for types without any."""
    found = sample.ladders
    if found is None or not np.isfinite(found.step).all() or not sample.stored.size:
        return None
    numbers = found.rung_numbers(sample.stored.reshape(len(sample.blocks), -1))
    counts = np.bincount(numbers[numbers >= 0], minlength=len(found.scheme.rungs))
    total = max(int(counts.sum()), 1)
    shares = counts[counts > 0] / total
    widths = np.abs(found.step[found.step != 0])
    return Levels(
        sampled=int(sample.stored.size),
        rungs=found.scheme.rungs,
        counts=tuple(counts.tolist()),
        at_ends=float(counts[0] + counts[-1]) / total,
        entropy=float(-(shares * np.log2(shares)).sum()) + 0.0,
        flat=float((found.step == 0).mean()),
        steps=_three(np.percentile(widths, (5, 50, 95)) if len(widths) else np.zeros(3)),
    )


def _three(numbers: NDArray[np.floating]) -> tuple[float, float, float]:
    low, middle, high = numbers.tolist()
    return low, middle, high


def portrait_of(sample: Sample, why: str) -> Portrait | None:
    """The distribution of the sampled weights; None where one is not finite, or all are the same."""
    values = sample.weights.reshape(-1)
    if not np.isfinite(values).all() or values.min() == values.max():
        return None
    reach = float(max(np.percentile(np.abs(values), 99.9), np.abs(values).max() / 50)) * 1.05
    low = -reach if values.min() < 0 else 0.0
    edges = np.linspace(low, reach, _BINS + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Portrait(
        tensor=sample.tensor,
        type=sample.tensor_type.name,
        why=why,
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        levels=_typical_levels(sample),
        values_per_scale=scheme.values_per_scale if (scheme := sample.tensor_type.levels) else 1,
        deviation=float(values.std()),
        largest=float(np.abs(values).max()),
        sampled=int(values.size),
        of_source=sample.source is not None,
    )


def _typical_levels(sample: Sample) -> tuple[float, ...]:
    found = sample.ladders
    if found is None:
        return ()
    order = np.argsort(np.abs(found.step), axis=None)
    block, part = np.unravel_index(order[len(order) // 2], found.step.shape)
    return tuple(np.sort(found.levels(int(block), int(part))).tolist())


def block_errors(sample: Sample, rms: float) -> NDArray[np.float64]:
    """The error of each sampled block of a tensor whose weights have this RMS; without a source, NaN."""
    shape = (len(sample.blocks), -1)
    if sample.source is None or not rms:
        return np.full(shape[0], np.nan)
    return block_rmse(sample.source.reshape(shape), sample.stored.reshape(shape)) / rms


def block_view(sample: Sample, at: int, title: str, rms: float) -> BlockView | None:
    """The `at`-th sampled block of a tensor whose weights have this RMS; None for a type without levels, or where a
    value is infinite or not a number."""
    found = sample.ladders
    if found is None or not all(np.isfinite(part[at]).all() for part in (found.base, found.step)):
        return None
    per_row = sample.stored.shape[1] // sample.tensor_type.block_elements
    row, block = divmod(at, per_row)
    shape = (len(sample.blocks), -1)
    error = block_errors(sample, rms)[at]
    parts = range(found.step.shape[1])
    return BlockView(
        title=title,
        tensor=sample.tensor,
        type=sample.tensor_type.name,
        row=int(sample.rows[row]),
        block=block,
        weights=None if sample.source is None else tuple(sample.source.reshape(shape)[at].tolist()),
        stored=tuple(sample.stored.reshape(shape)[at].tolist()),
        levels=tuple(tuple(np.sort(found.levels(at, part)).tolist()) for part in parts),
        bases=tuple(found.base[at].tolist()),
        steps=tuple(found.step[at].tolist()),
        fields=_scale_fields(sample, at),
        relative=None if np.isnan(error) else float(error),
    )


def _scale_fields(sample: Sample, at: int) -> Mapping[str, float]:
    """The floating-point scales of the block by name."""
    block = unpack_blocks(sample.blocks[at], sample.tensor_type)[0]
    names = [name for name in block.dtype.names or () if block[name].dtype.kind == "f" and not block[name].shape]
    return {name: float(block[name]) for name in names}
