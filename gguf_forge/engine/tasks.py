"""What a run writes, cut into tasks: some rows of one tensor each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_forge.expr import TensorExpr
from gguf_forge.gguf_file.layout import Layout, PlacedTensor
from gguf_forge.tensor_types import TensorType

# A megavalue is 4 MiB of float32: large enough that Python's part of a task does not count, small enough to
# keep the threads' buffers far below the memory bound.
TASK_VALUES = 1 << 20


@dataclass(frozen=True)
class RowSource:
    """Where a tensor's values come from.

    Attributes:
        expr: Its rows.
        base: The float type that they are rounded to before quantizing.
        weights: Importance of each column, for each matrix (expert) in turn; None treats all alike.
    """

    expr: TensorExpr
    base: TensorType
    weights: NDArray[np.float32] | None = None

    def weights_of(self, row: int) -> NDArray[np.float32] | None:
        """The importance of the columns of the matrix that a row is in."""
        if self.weights is None:
            return None
        columns: NDArray[np.float32] = self.weights.reshape(-1, self.expr.shape[-1])[row // self.expr.matrix_rows]
        return columns


@dataclass(frozen=True)
class Shard:
    """One file to write, or one part of a split file.

    Attributes:
        path: Its name when it is complete.
        layout: Header, tensors and offsets.
        sources: One for each tensor of the layout, in its order.
    """

    path: Path
    layout: Layout
    sources: tuple[RowSource, ...]


@dataclass(frozen=True)
class Task:
    """Rows `start` to `stop` of a tensor."""

    placed: PlacedTensor
    source: RowSource
    start: int
    stop: int


def task_values(buffer: int | None, workers: int) -> int:
    """Values of one task: a thread holds them packed, as float32, and packed anew."""
    return TASK_VALUES if buffer is None else min(TASK_VALUES, buffer // (12 * workers))


def cut(shard: Shard, values: int) -> Iterator[Task]:
    for placed, source in zip(shard.layout.tensors, shard.sources, strict=True):
        if placed.info.nbytes == 0:
            continue
        step = max(1, values // placed.info.n_per_row)
        border = _border(source, placed.info.n_rows, step)
        step = border if source.expr.is_columnwise else min(step, border)
        for first in range(0, placed.info.n_rows, border):
            stop = min(first + border, placed.info.n_rows)
            for start in range(first, stop, step):
                yield Task(placed, source, start, min(start + step, stop))


def _border(source: RowSource, n_rows: int, step: int) -> int:
    """Rows between borders that no task crosses: those of each matrix, where weights belong to one; small matrices
    without weights share a task."""
    matrix = source.expr.matrix_rows
    if source.weights is not None or matrix >= step or source.expr.is_columnwise:
        return matrix
    return min(n_rows, step // matrix * matrix)
