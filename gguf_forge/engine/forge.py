"""Runs layouts: reads rows, rounds and quantizes them, writes them where they belong.

The work is cut into batches of some rows, which threads take one after the other. A batch holds its own rows and
nothing else, so memory depends on the number of threads, not on the model. Kernels release the interpreter lock, so
threads scale.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gguf_forge.engine.batches import BATCH_VALUES, PIECE_VALUES, Batch, Shard, Target, cut, whole_tensors
from gguf_forge.engine.fingerprint import fingerprint
from gguf_forge.engine.memory import Budget, Room, room
from gguf_forge.engine.pack import as_written, pack
from gguf_forge.engine.refusals import refuse
from gguf_forge.engine.shared_reads import in_order, read_again
from gguf_forge.engine.threads import Progress, in_threads
from gguf_forge.errors import naming
from gguf_forge.kernels.binding import is_finite
from gguf_forge.run_settings import RunSettings
from gguf_forge.storage.local.publish import published_together
from gguf_forge.storage.profile import CONVERT, WRITE, phase
from gguf_forge.storage.read_once import ReadOnce
from gguf_forge.storage.sink import Output, Publish, Sink
from gguf_forge.storage.source import ByteRange, Source
from gguf_forge.types.rows import Rows

# Extra threads. While some threads wait for the disk, there are still enough others to keep every processor busy.
_WAITING = 2


def default_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forge(
    shards: Sequence[Shard],
    run: RunSettings,
    progress: Progress = lambda n_bytes: None,
    publish: Publish = published_together,
    resumed: Progress = lambda n_bytes: None,
    begin: Callable[[], None] = lambda: None,
) -> tuple[int, ...]:
    """Writes files, or the parts of split ones. What several of them are made of is read once.

    Args:
        shards: The files and parts. Their names appear when all are complete, the name of the first one last.
        run: How it is run. `run.threads` threads compute at the same time; a few more wait for a disk.
        progress: Told the bytes of the outputs as they are written.
        publish: Makes the files. It decides where they are stored.
        resumed: Told first how many bytes are there from an earlier run.
        begin: Called before that and before the first byte is written, when nothing was refused.

    Returns:
        For each of `shards`, how many of its tensors earlier runs had finished.

    Raises:
        UsageError: the memory allowed is too little for one row.
        RefusedError: another run is writing one of the files.
        OutputError: a file cannot be written. Nothing is left under the names.
        InputError: weights that no block can hold, such as infinities; a file that changed while it was read.
    """
    whole = whole_tensors(shards)
    processors = run.threads or default_threads()
    again = read_again(whole)
    wanted = sum(place.nbytes for place in again)
    limits = room(whole, processors + _WAITING, max_memory=run.max_memory, buffer=run.buffer, kept=wanted)

    files = [Output(shard.path, shard.layout.size, fingerprint(shard)) for shard in shards]
    with publish(files, overwrite=run.overwrite, resume=run.resume) as outputs:
        begin()
        for shard, out in zip(shards, outputs, strict=True):
            out.write_at(0, memoryview(shard.layout.header))
            progress(len(shard.layout.header))
        kept = ReadOnce(again, limits.kept)
        work = _Work(outputs, run.backend, Budget(limits.total), threading.Semaphore(processors), kept)
        batches = partial(in_order, whole, again, partial(_cut, limits))
        if run.resume and (done := sum(map(work.done, batches()))):
            resumed(done)
        in_threads(batches(), work.run, limits.threads, progress, run.profile)
        for source in _sources(shards):
            source.check_unchanged()
        return tuple(_resumed(shard, out) for shard, out in zip(shards, outputs, strict=True))


def _cut(limits: Room, batch: Batch) -> Iterator[Batch]:
    return cut([batch], BATCH_VALUES, share=limits.share, total=limits.total)


def _sources(shards: Sequence[Shard]) -> Iterable[Source]:
    return {id(read): read for shard in shards for row in shard.sources for read in row.expr.sources()}.values()


def _resumed(shard: Shard, out: Sink) -> int:
    """How many tensors are from earlier runs."""
    return sum(out.has(placed.offset, placed.info.nbytes) for placed in shard.layout.tensors if placed.info.nbytes)


@dataclass(frozen=True)
class _Work:
    """Runs batches.

    Attributes:
        outputs: The files, by their numbers.
        backend: Which kernels.
        budget: The memory for all batches.
        processors: A semaphore for the number of threads that may compute at the same time.
        kept: What more than one batch reads.
    """

    outputs: Sequence[Sink]
    backend: str | None
    budget: Budget
    processors: threading.Semaphore
    kept: ReadOnce

    def run(self, batch: Batch) -> int:
        """Runs a batch and gives the number of bytes written. Rows finished by an earlier run are not made again."""
        left = tuple(target for target in batch.targets if not self._has(batch, target))
        if left:
            with self.budget.taken(batch.nbytes), self.kept.serving():
                self._write(batch._replace(targets=left))
        return sum(batch.place(target)[1] for target in left)

    def done(self, batch: Batch) -> int:
        """The bytes of a batch that an earlier run finished."""
        return sum(batch.place(target)[1] for target in batch.targets if self._has(batch, target))

    def _has(self, batch: Batch, target: Target) -> bool:
        return self.outputs[target.output].has(*batch.place(target))

    def _write(self, batch: Batch) -> None:
        runs = _stored_as_they_are(batch)
        if runs is not None and not any(self.kept.has(run.source, run.offset) for run in runs):
            self._copy(runs, batch)
            return
        start, n_rows = batch.start, max(1, PIECE_VALUES // batch.expr.shape[-1])
        pieces = batch.expr.in_pieces(np.arange(batch.start, batch.stop), n_rows)
        while start < batch.stop:
            with phase(CONVERT), naming(batch.targets[0].placed.info.name):
                rows = next(pieces)
            stop = start + len(rows)
            self._write_rows(rows, batch._replace(start=start, stop=stop))
            start = stop

    def _write_rows(self, rows: Rows, batch: Batch) -> None:
        packing = pack(rows, batch, backend=self.backend, check=refuse)
        while (packed := self._next(packing)) is not None:
            targets, data = packed
            data = as_written(data, targets[0])
            with phase(WRITE):
                for target in targets:
                    at, nbytes = batch.place(target)
                    self.outputs[target.output].write_at(at, data.view(np.uint8).reshape(-1).data)
                    self.outputs[target.output].finished(at, nbytes)
            del packed, data  # freed before the next rows are made

    def _next(self, packing: Iterator[tuple[tuple[Target, ...], Rows]]) -> tuple[tuple[Target, ...], Rows] | None:
        with self.processors:
            return next(packing, None)

    def _copy(self, runs: Iterable[ByteRange], batch: Batch) -> None:
        target = batch.targets[0]
        out, (begin, nbytes) = self.outputs[target.output], batch.place(target)
        at, row = begin, batch.start
        with phase(WRITE):
            for run in runs:
                if target.source.is_checked and target.type.exponents:
                    data = run.source.read(run.offset, run.nbytes, at=at)
                    rows = data.view(target.type.dtype)
                    if not is_finite(rows, target.type, backend=self.backend):
                        refuse(rows, rows, rows, target, row)
                    out.write_at(at, data.data)
                else:
                    out.copy_from(run.source, run.offset, at, run.nbytes)
                at, row = at + run.nbytes, row + run.nbytes // batch.expr.row_bytes
            out.finished(begin, nbytes)


def _stored_as_they_are(batch: Batch) -> tuple[ByteRange, ...] | None:
    """The stored bytes to copy, if the rows are written as they are stored. None for several targets: then reading the
    rows once is less work than copying them for each."""
    target = batch.targets[0]
    is_as_stored = target.type == target.base == batch.expr.dtype and not target.source.is_swapped
    if len(batch.targets) > 1 or not is_as_stored:
        return None
    return batch.expr.stored_runs(batch.start, batch.stop)
