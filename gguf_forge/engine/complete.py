"""Checks whether an output exists already with the bytes that a run would write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

import numpy as np

from gguf_forge.engine.batches import Batch, Shard, Target
from gguf_forge.engine.pack import as_written, pack
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.output_errors import output_errors

# A row that takes more memory than this is not checked. One row of a large matrix that is read by columns is an
# example.
_MOST_MEMORY = 16 << 20
# The step from the row checked in one tensor to that in the next. It is a prime, so that with stacked experts not
# always the same expert is checked.
_STRIDE = 7919


def difference(shard: Shard, inputs: Iterable[Path]) -> str | None:
    """Why the file at the path of a shard is not what a run would write there; None if no difference is found.

    It compares the size, the header, the times of all `inputs`, and one row of every tensor. The rows are needed
    because no header tells the values of tensors, and the header of a later part does not even tell the model.

    Args:
        shard: What would be written.
        inputs: Files that decide its bytes. None may be younger.

    Raises:
        InputError: weights cannot be read.
        OutputError: the file is there and cannot be read.
    """
    with output_errors(shard.path):
        try:
            if not S_ISREG(disk.status(shard.path).st_mode):
                return "it is not a regular file"
            descriptor = disk.open_read(shard.path)
        except FileNotFoundError:
            return "it is not there"
        try:
            return _difference(shard, descriptor, inputs)
        finally:
            disk.close(descriptor)


def _difference(shard: Shard, descriptor: int, inputs: Iterable[Path]) -> str | None:
    status, header = disk.status_of_open(descriptor), shard.layout.header
    if status.st_size != shard.layout.size:
        return f"it has {status.st_size:,} bytes instead of {shard.layout.size:,}"
    if disk.pread_all(descriptor, len(header), 0) != header:
        return "it has other metadata or tensors"
    for path in inputs:
        with suppress(OSError):  # an input that was deleted after it was read has no time to compare
            if disk.status(path).st_mtime_ns > status.st_mtime_ns:
                return f"{path} is younger"
    for target, batch in _rows(shard):
        ((_, packed),) = pack(batch.expr.rows(batch.start, batch.stop), batch)
        offset, nbytes = batch.place(target)
        if disk.pread_all(descriptor, nbytes, offset) != as_written(packed, target).view(np.uint8).tobytes():
            return f"{target.placed.info.name} has other values"
    return None


def _rows(shard: Shard) -> Iterator[tuple[Target, Batch]]:
    """One row of each tensor."""
    for number, (placed, source) in enumerate(zip(shard.layout.tensors, shard.sources, strict=True)):
        row = number * _STRIDE % max(1, source.expr.n_rows)
        target = Target(0, placed, source)
        batch = Batch(source.expr, row, row + 1, (target,))
        if placed.info.nbytes and batch.nbytes <= _MOST_MEMORY:
            yield target, batch
