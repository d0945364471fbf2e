"""What a run writes, cut into tasks: some rows of one expression, and every tensor that is made of them.

Files of one run share their expressions, so rows that several of them need are read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
class Target:
    """A tensor to write.

    Attributes:
        output: The number of its file among those of the run.
        placed: Its name, type and offset.
        source: Where its values come from.
    """

    output: int
    placed: PlacedTensor
    source: RowSource

    @property
    def type(self) -> TensorType:
        return self.placed.info.type

    def offset_of(self, row: int) -> int:
        """The byte of the file that a row begins at."""
        return self.placed.offset + row * self.type.row_bytes(self.placed.info.n_per_row)


@dataclass(frozen=True)
class Task:
    """Rows `start` to `stop` of an expression, for all its targets. There is at least one."""

    expr: TensorExpr
    start: int
    stop: int
    targets: tuple[Target, ...]


def whole_tensors(shards: Sequence[Shard]) -> tuple[Task, ...]:
    """The tensors of all files, each expression once with everything that is made of it, in the order of the files.

    An expression is the same one if it is the same object. Tensors without values are nothing to do.
    """
    targets: dict[int, list[Target]] = {}
    for output, shard in enumerate(shards):
        for placed, source in zip(shard.layout.tensors, shard.sources, strict=True):
            if placed.info.nbytes:
                targets.setdefault(id(source.expr), []).append(Target(output, placed, source))
    return tuple(_whole(found[0].source.expr, tuple(found)) for found in targets.values())


def _whole(expr: TensorExpr, targets: tuple[Target, ...]) -> Task:
    return Task(expr, 0, expr.n_rows, targets)


def task_values(buffer: int | None, workers: int) -> int:
    """Values of one task: a thread holds them packed, as float32, and packed anew."""
    return TASK_VALUES if buffer is None else min(TASK_VALUES, buffer // (12 * workers))


def cut(whole: Iterable[Task], values: int) -> Iterator[Task]:
    """Tasks of about so many values each, that together are `whole`."""
    for task in whole:
        step = max(1, values // task.expr.shape[-1])
        border = _border(task, step)
        step = border if task.expr.is_columnwise else min(step, border)
        for first in range(task.start, task.stop, border):
            stop = min(first + border, task.stop)
            for start in range(first, stop, step):
                yield replace(task, start=start, stop=min(start + step, stop))


def _border(task: Task, step: int) -> int:
    """Rows between borders that no task crosses: those of each matrix, where weights belong to one; small matrices
    without weights share a task."""
    matrix = task.expr.matrix_rows
    weighed = any(target.source.weights is not None for target in task.targets)
    if weighed or matrix >= step or task.expr.is_columnwise:
        return matrix
    return step // matrix * matrix
