"""Files cut into pieces. Pieces are made independently, and are joined by appending their bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from gguf_forge.engine.batches import BATCH_VALUES, RowSource, Shard
from gguf_forge.errors import UsageError
from gguf_forge.gguf_file.layout import Layout, PlacedTensor
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.tensors.row_maps import RowRange

MOST_TASKS = 100_000


class Piece(NamedTuple):
    """Bytes `start` to `stop` of a file of a run. They hold its header, tensors or rows of tensors, and padding."""

    output: int
    start: int
    stop: int


def cut_pieces(
    shards: Sequence[Shard], n_tasks: int | None = None, *, values: int = BATCH_VALUES
) -> tuple[tuple[Piece, ...], ...]:
    """The pieces of each task, which together are all files. Tasks have about as many values.

    Args:
        shards: The files.
        n_tasks: None for one task for each file. Files are only cut if there are fewer of them.
        values: About this many values of a tensor stay together.

    Raises:
        UsageError: a number of tasks that makes no sense.

    Example:
        >>> cut_pieces([Shard(Path("a"), Layout(b"header", (), 32), ())], 2)
        ((), (Piece(output=0, start=0, stop=32),))
    """
    wanted = len(shards) if n_tasks is None else n_tasks
    if not 1 <= wanted <= MOST_TASKS:
        raise UsageError(f"the work cannot be cut into {wanted:,} tasks", hint=f"choose from 1 to {MOST_TASKS:,}")
    if wanted == len(shards):
        return tuple((Piece(number, 0, shard.layout.size),) for number, shard in enumerate(shards))
    numbered = enumerate(shards)
    if len(shards) >= wanted:
        stretches = [_file(*item) for item in numbered]
    else:
        stretches = [stretch for item in numbered for stretch in _tensors(*item, values)]
    ends = list(accumulate(stretch.weight for stretch in stretches))
    borders = [(0, 0)]
    for number in range(1, wanted):
        target = ends[-1] * number // wanted
        at = bisect_left(ends, target)
        borders.append(stretches[at].border(target - (ends[at] - stretches[at].weight)))
    borders.append((len(shards) - 1, shards[-1].layout.size))
    return tuple(tuple(_between(*pair, shards)) for pair in pairwise(borders))


class _Stretch(NamedTuple):
    """Bytes `start` to `stop` of a file. They may be cut only after a whole number of `step`s from `first`, before
    `end`."""

    output: int
    start: int
    stop: int
    weight: int
    first: int
    end: int
    step: int
    step_weight: int

    def border(self, weight: int) -> tuple[int, int]:
        """The file, and the place in it that has about `weight` values of this stretch before it."""
        n_steps = (2 * weight + self.step_weight) // (2 * self.step_weight)
        at = self.first + n_steps * self.step
        return self.output, self.start if n_steps == 0 else self.stop if at >= self.end else at


def _file(output: int, shard: Shard) -> _Stretch:
    size, weight = shard.layout.size, sum(placed.info.n_elements for placed in shard.layout.tensors)
    return _Stretch(output, 0, size, weight, 0, size, size, max(1, weight))


def _tensors(output: int, shard: Shard, values: int) -> Iterator[_Stretch]:
    """A stretch for each tensor and the padding after it. The first stretch also has the header."""
    placed = shard.layout.tensors
    if not placed:
        yield _file(output, shard)
        return
    starts = [0, *(tensor.offset for tensor in placed[1:]), shard.layout.size]
    for tensor, source, (start, stop) in zip(placed, shard.sources, pairwise(starts), strict=True):
        info, unit = tensor.info, _unit(source)
        rows = unit * max(1, values // max(1, unit * info.n_per_row))
        step = rows * info.type.row_bytes(info.n_per_row)
        end = tensor.offset + info.nbytes
        yield _Stretch(output, start, stop, info.n_elements, tensor.offset, end, step, max(1, rows * info.n_per_row))


def _unit(source: RowSource) -> int:
    """Rows that stay together: of a matrix that is read by columns, or that has importance of its own."""
    expr = source.expr
    has_own = source.importance is not None and expr.n_rows > expr.matrix_rows
    return max(1, expr.matrix_rows) if has_own or expr.is_columnwise else 1


def _between(begin: tuple[int, int], end: tuple[int, int], shards: Sequence[Shard]) -> Iterator[Piece]:
    for output in range(begin[0], end[0] + 1):
        start = begin[1] if output == begin[0] else 0
        stop = end[1] if output == end[0] else shards[output].layout.size
        if start < stop:
            yield Piece(output, start, stop)


def shard_of(piece: Piece, shard: Shard, path: Path) -> Shard:
    """A piece of `shard` as a file of its own, to be written to `path`."""
    if (piece.start, piece.stop) == (0, shard.layout.size):
        return replace(shard, path=path)
    parts = [_rows_of(piece, *item) for item in zip(shard.layout.tensors, shard.sources, strict=True)]
    tensors, sources = zip(*(part for part in parts if part), strict=True) if any(parts) else ((), ())
    header = shard.layout.header if piece.start == 0 else b""
    return Shard(path, Layout(header, tensors, piece.stop - piece.start), sources)


def _rows_of(piece: Piece, placed: PlacedTensor, source: RowSource) -> tuple[PlacedTensor, RowSource] | None:
    """The rows of a tensor that are in a piece, as a tensor of the piece; None if there are none."""
    info = placed.info
    start, stop = (min(max(at - placed.offset, 0), info.nbytes) for at in (piece.start, piece.stop))
    if start == stop:
        return None
    if stop - start == info.nbytes:
        return PlacedTensor(info, placed.offset - piece.start), source
    row_bytes = info.type.row_bytes(info.n_per_row)
    first, last = start // row_bytes, stop // row_bytes
    # Errors count rows from the first row of the piece, so the name tells the number of that row.
    part = TensorInfo(f"{info.name}[{first}:{last}]", (info.n_per_row, last - first), info.type)
    return PlacedTensor(part, placed.offset + start - piece.start), _row_range(source, first, last)


def _row_range(source: RowSource, start: int, stop: int) -> RowSource:
    expr, importance = source.expr, source.importance
    if importance is not None and expr.n_rows > expr.matrix_rows:
        by_matrix = importance.reshape(-1, expr.shape[-1])
        importance = by_matrix[start // expr.matrix_rows : stop // expr.matrix_rows].reshape(-1)
    return replace(source, expr=RowRange(expr, start, stop), importance=importance)
