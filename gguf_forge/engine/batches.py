"""The work of a run, cut into batches. A batch is some rows of one expression and every tensor that is made of them.

Files of one run share their expressions, so rows that several of them need are read once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gguf_forge.gguf_file.layout import Layout, PlacedTensor
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.tensor_type import F32, TensorType

# The values of a batch: one mebibyte of bf16. This is large enough that the time spent in Python does not count, and
# small enough that the rows are still in the cache of the processor when they are quantized.
BATCH_VALUES = 1 << 19
# Codes become values in smaller pieces, because a value then has four bytes and not one or two.
PIECE_VALUES = 1 << 18


@dataclass(frozen=True, slots=True)
class RowSource:
    """Where a tensor's values come from.

    Attributes:
        expr: Its rows.
        base: The type that they are rounded to before quantizing: a float type, or Q8_0 if the base file has that.
        importance: Of each column, for each matrix (expert) in turn; None treats all alike.
        is_checked: Whether values that are infinite or not a number are refused.
        is_swapped: Whether they are written in the other byte order than that of `expr`.
    """

    expr: TensorExpr
    base: TensorType
    importance: NDArray[np.float32] | None = None
    is_checked: bool = True
    is_swapped: bool = False

    def importance_of(self, row: int) -> NDArray[np.float32] | None:
        """The importance of the columns of the matrix that a row is in."""
        if self.importance is None:
            return None
        columns: NDArray[np.float32] = self.importance.reshape(-1, self.expr.shape[-1])[row // self.expr.matrix_rows]
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

    @property
    def bytes_to_write(self) -> int:
        """Bytes of its header and tensors, without what lies between them."""
        return len(self.layout.header) + sum(placed.info.nbytes for placed in self.layout.tensors)


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

    @property
    def base(self) -> TensorType:
        """The type of the rows before they are packed: the base type, or F32 if they come from another packed type."""
        tensor_type = self.source.expr.dtype
        if tensor_type.is_float:
            return self.source.base
        return tensor_type if tensor_type == self.type else F32

    @property
    def unpacked_bytes(self) -> int:
        """Bytes for each row that its values take between two packed types."""
        return F32.row_bytes(self.placed.info.n_per_row) if self.base.is_packed and self.type != self.base else 0

    @property
    def swapped_bytes(self) -> int:
        """Bytes for each row that the other byte order takes: the row as it was, and as it is written."""
        return 2 * self.row_bytes if self.source.is_swapped else 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in the file."""
        return self.type.row_bytes(self.placed.info.n_per_row)

    def offset_of(self, row: int) -> int:
        """The byte of the file that a row begins at."""
        return self.placed.offset + row * self.row_bytes


class Batch(NamedTuple):
    """Rows `start` to `stop` of an expression, for all its targets. There is at least one."""

    expr: TensorExpr
    start: int
    stop: int
    targets: tuple[Target, ...]

    def place(self, target: Target) -> tuple[int, int]:
        """Where the rows go in the file of a target: the byte that they begin at, and how many bytes they are."""
        return target.offset_of(self.start), (self.stop - self.start) * target.row_bytes

    def need(self, n_rows: int) -> int:
        """The most bytes that a batch of this number of rows holds: what it reads and computes, for one base type at a
        time, and within that for one packed type at a time."""
        n = self.expr.shape[-1]
        per_row = max(
            _row_bytes(target.base, n, self.expr.dtype)
            + target.unpacked_bytes
            + _row_bytes(target.type, n, target.base)
            + target.swapped_bytes
            for target in self.targets
        )
        return self.expr.working_set(n_rows) + n_rows * per_row

    @property
    def nbytes(self) -> int:
        """The most bytes that the batch holds."""
        return self.need(self.stop - self.start)


def _row_bytes(tensor_type: TensorType, n: int, of: TensorType) -> int:
    """Bytes that `n` values take after they are converted from another type; 0 if both types are the same."""
    return 0 if tensor_type == of else tensor_type.row_bytes(n)


def whole_tensors(shards: Sequence[Shard]) -> tuple[Batch, ...]:
    """The tensors of all files, each expression once with everything that is made of it, in the order of the files.

    Two expressions are the same only if they are the same object. Tensors without values are left out.
    """
    targets: dict[int, list[Target]] = {}
    for output, shard in enumerate(shards):
        for placed, source in zip(shard.layout.tensors, shard.sources, strict=True):
            if placed.info.nbytes:
                targets.setdefault(id(source.expr), []).append(Target(output, placed, source))
    return tuple(_whole(found[0].source.expr, tuple(found)) for found in targets.values())


def _whole(expr: TensorExpr, targets: tuple[Target, ...]) -> Batch:
    return Batch(expr, 0, expr.n_rows, targets)


def cut(whole: Iterable[Batch], values: int, *, share: int, total: int) -> Iterator[Batch]:
    """Batches that together are `whole`.

    Args:
        whole: Expressions with all their rows.
        values: About how many values a batch has. It has at least one row.
        share: Bytes that a batch may hold.
        total: Bytes that a batch may hold if each batch has to read a whole matrix. A few large batches are best then.
    """
    for batch in whole:
        together = batch.expr.rows_together
        if together > 1:
            border = batch.expr.matrix_rows
            step = _rows_within(batch, min(border, max(together, values // batch.expr.shape[-1])), total)
        else:
            step = _rows_within(batch, max(1, values // batch.expr.shape[-1]), share)
            border = _border(batch, step)
        for first in range(batch.start, batch.stop, border):
            stop = min(first + border, batch.stop)
            for start in range(first, stop, step):
                yield batch._replace(start=start, stop=min(start + step, stop))


def _rows_within(batch: Batch, n_rows: int, nbytes: int) -> int:
    """The most rows up to `n_rows` that need no more than `nbytes`; one, if that is too little."""
    return max(1, bisect_right(range(1, n_rows + 1), nbytes, key=batch.need))


def _border(batch: Batch, step: int) -> int:
    """The number of rows after which a new batch must begin: the rows of one matrix if each matrix has its own
    importance. Small matrices without importance can share a batch."""
    matrix = batch.expr.matrix_rows
    weighed = any(target.source.importance is not None for target in batch.targets)
    if weighed or matrix >= step:
        return matrix
    return step // matrix * matrix
