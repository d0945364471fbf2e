"""Runs layouts: reads rows, rounds and quantizes them, writes them where they belong.

The work is cut into tasks of some rows, which threads take one after the other. A task holds its own rows and nothing
else, so memory depends on the number of threads, not on the model. Kernels release the interpreter lock: threads scale.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np

from gguf_forge.engine.pack import pack
from gguf_forge.engine.profile import CONVERT, WAIT, WRITE, Profile, measured, phase
from gguf_forge.engine.publish import OutputFile, published
from gguf_forge.engine.tasks import Shard, Target, Task, cut, task_values, whole_tensors
from gguf_forge.errors import InputError, UsageError
from gguf_forge.expr import Rows
from gguf_forge.validity import first_invalid_block

Progress = Callable[[int], None]
T = TypeVar("T")


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
    profile: Profile | None = None,
) -> None:
    """Writes files, or the parts of split ones. What several of them are made of is read once.

    Args:
        shards: The files and parts; their names appear when all are complete, that of the first one last.
        threads: Defaults to the processors this process may use.
        backend: Which kernels; the default is the fastest of this machine.
        overwrite: Replace existing files.
        buffer: Bytes that the rows in work may take, in all threads together; None for the least that is fast.
        progress: Told the bytes of the outputs as they are written.
        profile: Is told where the time of each thread goes.

    Raises:
        OutputError: a file cannot be written. Nothing is left under the names.
        InputError: weights that no block can hold, such as infinities; a file that changed while it was read.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    workers = threads or default_threads()
    with ExitStack() as stack:
        outputs = [
            stack.enter_context(published(shard.path, shard.layout.size, overwrite=overwrite)) for shard in shards
        ]
        for shard, out in zip(shards, outputs, strict=True):
            out.write_at(0, memoryview(shard.layout.header))
            progress(len(shard.layout.header))
        tasks = cut(whole_tensors(shards), task_values(buffer, workers))
        _in_threads(tasks, lambda task: _run(task, outputs, backend), workers, progress, profile)
        for read in {id(s): s for shard in shards for row in shard.sources for s in row.expr.sources()}.values():
            read.check_unchanged()


def _in_threads(
    tasks: Iterable[Task], run: Callable[[Task], int], workers: int, progress: Progress, profile: Profile | None
) -> None:
    """Runs all tasks; the first error of one ends the others, and is raised when no thread works any more."""
    queue = _Shared(iter(tasks))
    done: SimpleQueue[int | None] = SimpleQueue()

    def work(number: int) -> None:
        try:
            with measured(profile, f"worker {number}"):
                for task in queue:
                    done.put(run(task))
        finally:
            queue.close()  # there is no task left, or an error
            done.put(None)

    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(work, number) for number in range(1, workers + 1)]
        try:
            with phase(WAIT):
                for _ in running:
                    while (n_bytes := done.get()) is not None:
                        progress(n_bytes)
        finally:
            queue.close()
    for thread in running:
        thread.result()


class _Shared(Generic[T]):
    """What several threads take from, until it is empty or closed."""

    def __init__(self, items: Iterator[T]):
        self._items = items
        self._lock = threading.Lock()
        self._open = True

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            if not self._open:
                raise StopIteration
            return next(self._items)

    def close(self) -> None:
        self._open = False


def _run(task: Task, outputs: Sequence[OutputFile], backend: str | None) -> int:
    """The bytes written."""
    with phase(CONVERT):
        rows = task.expr.rows(task.start, task.stop)
    done = 0
    for targets, packed in pack(rows, task, backend=backend):
        _refuse_invalid(packed, targets[0], task.start)
        with phase(WRITE):
            for target in targets:
                outputs[target.output].write_at(target.offset_of(task.start), packed.view(np.uint8).reshape(-1).data)
                done += packed.nbytes
    return done


def _refuse_invalid(packed: Rows, target: Target, start: int) -> None:
    # what is stored in the type it had is not looked at, there as here
    if target.type == target.source.base:
        return
    block = first_invalid_block(packed.view(np.uint8), target.type)
    if block is not None:
        info = target.placed.info
        row = start + block * info.type.block_elements // info.n_per_row
        raise InputError(
            f"row {row} cannot be packed to {info.type}: the scale of a block is infinite or not a number",
            tensor=info.name,
            hint="the weights hold infinite or huge values there: get an intact copy of the model",
        )
