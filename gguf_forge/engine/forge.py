"""Runs layouts: reads rows, rounds and quantizes them, writes them where they belong.

The work is cut into tasks of some rows, which threads take one after the other. A task holds its own rows and nothing
else, so memory depends on the number of threads, not on the model. Kernels release the interpreter lock: threads scale.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np

from gguf_forge.engine.fingerprint import fingerprint
from gguf_forge.engine.memory import Budget, room
from gguf_forge.engine.output import Output, OutputFile
from gguf_forge.engine.pack import pack
from gguf_forge.engine.profile import CONVERT, WAIT, WRITE, Profile, measured, phase
from gguf_forge.engine.publish import is_complete, published_together
from gguf_forge.engine.tasks import TASK_VALUES, Shard, Target, Task, cut, whole_tensors
from gguf_forge.errors import InputError, UsageError
from gguf_forge.expr import Rows, StoredRun
from gguf_forge.source import Source
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
    max_memory: int | None = None,
    resume: bool = False,
    buffer: int | None = None,
    progress: Progress = lambda n_bytes: None,
    profile: Profile | None = None,
) -> tuple[int, ...]:
    """Writes files, or the parts of split ones. What several of them are made of is read once.

    Args:
        shards: The files and parts; their names appear when all are complete, that of the first one last.
        threads: Defaults to the processors this process may use.
        backend: Which kernels; the default is the fastest of this machine.
        overwrite: Replace existing files.
        max_memory: Bytes that the process may hold, everything counted; None for 1 GiB, or a little more than it holds
            already.
        resume: Go on from what a stopped run left, and if this run is stopped leave that. Files that are complete
            already stay as they are, unless they are to be replaced.
        buffer: Bytes that the rows in work may take, in all threads together; None for what `max_memory` leaves.
        progress: Told the bytes of the outputs as they are written.
        profile: Is told where the time of each thread goes.

    Returns:
        For each of `shards`, how many of its tensors earlier runs had finished.

    Raises:
        UsageError: the memory allowed is too little for one row.
        RefusedError: another run is writing one of the files.
        OutputError: a file cannot be written. Nothing is left under the names.
        InputError: weights that no block can hold, such as infinities; a file that changed while it was read.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    todo = unfinished(shards, overwrite=overwrite, resume=resume)
    whole = whole_tensors(todo)
    limits = room(whole, threads or default_threads(), max_memory=max_memory, buffer=buffer)
    budget = Budget(limits.total)

    def run(task: Task) -> int:
        with budget.taken(task.nbytes):
            return _run(task, outputs, backend)

    files = [Output(shard.path, shard.layout.size, fingerprint(shard)) for shard in todo]
    with published_together(files, overwrite=overwrite, resume=resume) as outputs:
        for shard, out in zip(todo, outputs, strict=True):
            out.write_at(0, memoryview(shard.layout.header))
            progress(len(shard.layout.header))
        tasks = cut(whole, TASK_VALUES, share=limits.share, total=limits.total)
        _in_threads(tasks, run, limits.threads, progress, profile)
        for source in _sources(todo):
            source.check_unchanged()
        resumed = {shard.path: _resumed(shard, out) for shard, out in zip(todo, outputs, strict=True)}
    return tuple(resumed.get(shard.path, len(shard.sources)) for shard in shards)


def unfinished(shards: Sequence[Shard], *, overwrite: bool, resume: bool) -> list[Shard]:
    """Those that are to be written: with `resume`, not those that are complete, as long as none is to be replaced."""
    if overwrite or not resume:
        return list(shards)
    return [
        shard
        for shard in shards
        if not is_complete(shard.path, shard.layout.size, shard.layout.header, _sources([shard]))
    ]


def _sources(shards: Sequence[Shard]) -> Iterable[Source]:
    return {id(read): read for shard in shards for row in shard.sources for read in row.expr.sources()}.values()


def _resumed(shard: Shard, out: OutputFile) -> int:
    """How many tensors are from earlier runs."""
    return sum(out.has(placed.offset, placed.info.nbytes) for placed in shard.layout.tensors if placed.info.nbytes)


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
        try:
            running = [pool.submit(work, number) for number in range(1, workers + 1)]
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
    """The bytes that it comes to. What an earlier run finished is not made again."""

    def place(target: Target) -> tuple[int, int]:
        at = target.offset_of(task.start)
        return at, target.offset_of(task.stop) - at

    left = tuple(target for target in task.targets if not outputs[target.output].has(*place(target)))
    runs = _stored_as_they_are(task.expr.stored_runs(task.start, task.stop), left)
    if runs is not None:
        with phase(WRITE):
            for target in left:
                _copy(runs, outputs[target.output], *place(target))
    elif left:
        with phase(CONVERT):
            rows = task.expr.rows(task.start, task.stop)
        for targets, packed in pack(rows, replace(task, targets=left), backend=backend):
            _refuse_invalid(packed, targets[0], task.start)
            with phase(WRITE):
                for target in targets:
                    at, nbytes = place(target)
                    outputs[target.output].write_at(at, packed.view(np.uint8).reshape(-1).data)
                    outputs[target.output].finished(at, nbytes)
            del packed  # not while the next one is made
    return sum(place(target)[1] for target in task.targets)


def _stored_as_they_are(runs: tuple[StoredRun, ...] | None, targets: Sequence[Target]) -> tuple[StoredRun, ...] | None:
    """The bytes to copy, if they are all that is needed."""
    return runs if all(target.type == target.base == target.source.expr.dtype for target in targets) else None


def _copy(runs: Iterable[StoredRun], out: OutputFile, at: int, nbytes: int) -> None:
    done = 0
    for run in runs:
        out.copy_from(run.source, run.offset, at + done, run.nbytes)
        done += run.nbytes
    out.finished(at, nbytes)


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
