"""Runs a layout: reads rows, rounds and quantizes them, writes them where they belong.

The work is cut into tasks of some rows of one tensor. A task holds its own rows and nothing else, so memory
depends on the number of threads, not on the model. Kernels release the interpreter lock: threads scale.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError, UsageError
from gguf_forge.expr import Rows, TensorExpr
from gguf_forge.gguf_file.layout import Layout, PlacedTensor
from gguf_forge.kernels import dequantize_rows, quantize_rows
from gguf_forge.publish import OutputFile, published
from gguf_forge.tensor_types import F32, TensorType
from gguf_forge.validity import first_invalid_block

# A megavalue is 4 MiB of float32: large enough that Python's part of a task does not count, small enough to
# keep the threads' buffers far below the memory bound.
TASK_VALUES = 1 << 20

Progress = Callable[[int], None]


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
class _Task:
    placed: PlacedTensor
    source: RowSource
    start: int
    stop: int


def default_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forge(
    shards: Sequence[Shard],
    *,
    threads: int | None = None,
    backend: str | None = None,
    overwrite: bool = False,
    buffer: int | None = None,
    progress: Progress = lambda n_bytes: None,
) -> None:
    """Writes a file, or all parts of a split one.

    Args:
        shards: The file or its parts; their names appear when all are complete, that of the first one last.
        threads: Defaults to the processors this process may use.
        backend: Which kernels; the default is the fastest of this machine.
        overwrite: Replace existing files.
        buffer: Bytes that the rows in work may take, in all threads together; None for the least that is fast.
        progress: Told the bytes of the output as they are written.

    Raises:
        OutputError: a file cannot be written. Nothing is left under the names.
        InputError: weights that no block can hold, such as infinities; a file that changed while it was read.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    workers = threads or default_threads()
    values = _task_values(buffer, workers)
    with ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        outputs = [
            stack.enter_context(published(shard.path, shard.layout.size, overwrite=overwrite)) for shard in shards
        ]
        pending: set[Future[int]] = set()
        try:
            for shard, out in zip(shards, outputs, strict=True):
                out.write_at(0, memoryview(shard.layout.header))
                progress(len(shard.layout.header))
                for task in _tasks(shard, values):
                    if len(pending) >= 2 * workers:
                        pending = _collect(pending, progress)
                    pending.add(pool.submit(_run, task, out, backend))
            while pending:
                pending = _collect(pending, progress)
            for read in {id(s): s for shard in shards for row in shard.sources for s in row.expr.sources()}.values():
                read.check_unchanged()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _task_values(buffer: int | None, workers: int) -> int:
    """Values of one task: a thread holds them packed, as float32, and packed anew."""
    return TASK_VALUES if buffer is None else min(TASK_VALUES, buffer // (12 * workers))


def _collect(pending: set[Future[int]], progress: Progress) -> set[Future[int]]:
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        progress(future.result())
    return rest


def _tasks(shard: Shard, values: int) -> Iterator[_Task]:
    for placed, source in zip(shard.layout.tensors, shard.sources, strict=True):
        if placed.info.nbytes == 0:
            continue
        step = max(1, values // placed.info.n_per_row)
        border = _border(source, placed.info.n_rows, step)
        step = border if source.expr.is_columnwise else min(step, border)
        for first in range(0, placed.info.n_rows, border):
            stop = min(first + border, placed.info.n_rows)
            for start in range(first, stop, step):
                yield _Task(placed, source, start, min(start + step, stop))


def _border(source: RowSource, n_rows: int, step: int) -> int:
    """Rows between borders that no task crosses: those of each matrix, where weights belong to one; small matrices
    without weights share a task."""
    matrix = source.expr.matrix_rows
    if source.weights is not None or matrix >= step or source.expr.is_columnwise:
        return matrix
    return min(n_rows, step // matrix * matrix)


def _run(task: _Task, out: OutputFile, backend: str | None) -> int:
    rows = task.source.expr.rows(task.start, task.stop)
    info = task.placed.info
    packed = pack(rows, task.source, info.type, weights=task.source.weights_of(task.start), backend=backend)
    _refuse_invalid(packed, task)
    at = task.placed.offset + task.start * info.type.row_bytes(info.n_per_row)
    out.write_at(at, packed.view(np.uint8).reshape(-1).data)
    return packed.nbytes


def _refuse_invalid(packed: Rows, task: _Task) -> None:
    info = task.placed.info
    # what is stored in the type it had is not looked at, there as here
    if info.type == task.source.base:
        return
    block = first_invalid_block(packed.view(np.uint8), info.type)
    if block is not None:
        row = task.start + block * info.type.block_elements // info.n_per_row
        raise InputError(
            f"row {row} cannot be packed to {info.type}: the scale of a block is infinite or not a number",
            tensor=info.name,
            hint="the weights hold infinite or huge values there: get an intact copy of the model",
        )


def pack(
    rows: Rows,
    source: RowSource,
    target: TensorType,
    *,
    weights: NDArray[np.float32] | None = None,
    backend: str | None = None,
) -> Rows:
    """Rows of `source` as rows of `target`: rounded to the base type first, as the reference's two steps do.

    Packed types (a quantized file, repacked MXFP4) pass as they are, or are unpacked to float32 first.
    """
    kind, base = source.expr.dtype, source.base
    if not kind.is_float and kind != target:
        rows, kind, base = _unpacked(rows, kind, backend), F32, F32
    for step in (base, target):
        if step != kind:
            out = np.empty((rows.shape[0], step.row_bytes(rows.shape[1])), np.uint8)
            quantize_rows(
                np.ascontiguousarray(rows), step, out, weights=None if step.is_float else weights, backend=backend
            )
            rows, kind = out.view(step.dtype), step
    return np.ascontiguousarray(rows)


def _unpacked(rows: Rows, kind: TensorType, backend: str | None) -> Rows:
    values = np.empty((rows.shape[0], rows.shape[1] // kind.block_bytes * kind.block_elements), np.float32)
    dequantize_rows(np.ascontiguousarray(rows), kind, values, backend=backend)
    return values
