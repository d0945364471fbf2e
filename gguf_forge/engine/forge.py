"""Runs a layout: reads rows, rounds and quantizes them, writes them where they belong.

The work is cut into tasks of some rows of one tensor. A task holds its own rows and nothing else, so memory
depends on the number of threads, not on the model. Kernels release the interpreter lock: threads scale.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

import numpy as np

from gguf_forge.engine.output import OutputFile
from gguf_forge.engine.pack import pack
from gguf_forge.engine.publish import published
from gguf_forge.engine.tasks import Shard, Task, cut, task_values
from gguf_forge.errors import InputError, UsageError
from gguf_forge.expr import Rows
from gguf_forge.validity import first_invalid_block

Progress = Callable[[int], None]


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
    values = task_values(buffer, workers)
    with ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        outputs = [
            stack.enter_context(published(shard.path, shard.layout.size, overwrite=overwrite)) for shard in shards
        ]
        pending: set[Future[int]] = set()
        try:
            for shard, out in zip(shards, outputs, strict=True):
                out.write_at(0, memoryview(shard.layout.header))
                progress(len(shard.layout.header))
                for task in cut(shard, values):
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


def _collect(pending: set[Future[int]], progress: Progress) -> set[Future[int]]:
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        progress(future.result())
    return rest


def _run(task: Task, out: OutputFile, backend: str | None) -> int:
    rows = task.source.expr.rows(task.start, task.stop)
    info = task.placed.info
    packed = pack(rows, task.source, info.type, weights=task.source.weights_of(task.start), backend=backend)
    _refuse_invalid(packed, task)
    at = task.placed.offset + task.start * info.type.row_bytes(info.n_per_row)
    out.write_at(at, packed.view(np.uint8).reshape(-1).data)
    return packed.nbytes


def _refuse_invalid(packed: Rows, task: Task) -> None:
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
