"""Bounds the memory that a process holds while it runs batches, whatever the size of the model.

The need of a batch is known before it begins. Batches are cut small enough to fit, and each takes its need out of one
`Budget` while it runs: where memory is short, threads wait for one another.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gguf_forge.engine.batches import Batch
from gguf_forge.errors import UsageError
from gguf_forge.kernels.binding import table_bytes
from gguf_forge.storage.buffers import OWN_PAGES
from gguf_forge.storage.memory import AT_LEAST_MORE, DEFAULT_MAX_MEMORY, resident_bytes, way_out

# Bytes that each thread takes for itself: its stack, and memory that its allocator keeps in pieces.
_THREAD_BYTES = 1 << 20
# The smallest share of a batch. Smaller batches are mostly overhead, so fewer threads are used instead.
_LEAST_SHARE = 1 << 20
# The most bytes that an allocator keeps for a thread after a batch. glibc returns the free memory at the end of a
# thread's arena when that is more than twice the largest block that was freed, and `fresh` makes larger buffers itself.
_MOST_IDLE = 2 * OWN_PAGES
# The most bytes that are kept of tensors that several batches read, and which share of the room they may take.
_MOST_KEPT, _SHARE_OF_KEPT = 64 << 20, 4
# Bytes left for everything but the batches: messages, a progress bar, objects of the interpreter.
_MARGIN = 16 << 20


@dataclass(frozen=True)
class Room:
    """The threads and memory that a run may use.

    Attributes:
        threads: How many work at the same time.
        total: Bytes for all batches at the same time.
        kept: Bytes for what more than one batch reads.
        share: Bytes for the batch of one thread, where each has one. What its allocator keeps between two batches, as
            much again or what a larger batch left, is not part of `total`.
    """

    threads: int
    total: int
    share: int
    kept: int


def room(
    whole: Sequence[Batch], threads: int, *, max_memory: int | None = None, buffer: int | None = None, kept: int = 0
) -> Room:
    """The threads and memory for the batches of a run.

    Args:
        whole: Everything to do, not cut yet.
        threads: How many threads are wanted.
        max_memory: Bytes that the process may hold, everything counted. None for 1 GiB, or a little more than it holds
            already.
        buffer: Bytes that the rows in work may take; more, if a single row takes more.
        kept: Bytes that are read for more than one batch.

    Raises:
        UsageError: not even one row at a time fits. The message says how much memory would be enough.
    """
    held = resident_bytes() + _MARGIN
    held += sum(map(table_bytes, {target.type for batch in whole for target in batch.targets}))
    least = max((batch.need(1) for batch in whole), default=0)
    bound = max(DEFAULT_MAX_MEMORY, held + AT_LEAST_MORE) if max_memory is None else max_memory
    enough = held + least + _THREAD_BYTES
    if bound < enough:
        raise UsageError(
            f"this needs {enough:,} bytes of memory at least, and {bound:,} are allowed",
            hint=way_out(enough),
        )
    kept = min(kept, _MOST_KEPT, (bound - enough) // _SHARE_OF_KEPT)
    held += kept
    # A batch that reads a whole matrix may be as large as the total, and leaves as much behind as an allocator keeps.
    left_behind = _MOST_IDLE if any(batch.expr.is_columnwise for batch in whole) else min(least, _MOST_IDLE)
    left_behind = max(_LEAST_SHARE, left_behind)
    threads = min(threads, max(1, (bound - held - least) // (_THREAD_BYTES + _LEAST_SHARE + left_behind)))
    free = bound - held - threads * _THREAD_BYTES
    of_thread = (free - least) // threads
    idle = max(of_thread // 2, min(left_behind, of_thread - _LEAST_SHARE))
    share, total = of_thread - idle, free - threads * idle
    if buffer is not None:
        total, share = min(total, max(buffer, least)), min(share, buffer // threads)
    return Room(threads, total, share, kept)


class Budget:
    """Bytes that several threads take and give back. A thread that asks for more than is left waits, and so do the
    threads that ask after it."""

    def __init__(self, total: int):
        self._left = total
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, nbytes: int) -> Iterator[None]:
        """Takes `nbytes` (at most the total) for the time of the block."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._left >= nbytes)
            self._left -= nbytes
        try:
            yield
        finally:
            with self._changed:
                self._left += nbytes
                self._changed.notify()
