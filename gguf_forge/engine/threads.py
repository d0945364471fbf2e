"""Threads that take items of work one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

from gguf_forge.errors import UsageError
from gguf_forge.storage.profile import WAIT, Profile, measured, phase

Progress = Callable[[int], None]
T = TypeVar("T")

_FIRST_STEPS = 2 << 20  # bytes that a thread may need before it runs its first item


def in_threads(
    items: Iterable[T], run: Callable[[T], int], workers: int, progress: Progress, profile: Profile | None = None
) -> None:
    """Runs all items in threads. The first error stops the other threads, and is raised when all have stopped.

    Args:
        items: The work. Threads take one item at a time.
        run: Called with an item. Its result is passed to `progress`, in the calling thread.
        workers: How many threads.
        progress: Called with the result of each item.
        profile: Records how each thread spends its time.

    Raises:
        UsageError: the system does not allow this number of threads.
    """
    queue = _SharedItems(iter(items))
    done: SimpleQueue[int | None] = SimpleQueue()
    # A signal may come while a thread is being started, and nobody waits for that one then: it must have done nothing.
    begun = threading.Event()

    def work(number: int) -> None:
        begun.wait()
        try:
            with measured(profile, f"worker {number}"):
                for item in queue:
                    done.put(run(item))
        finally:
            queue.close()  # no item is left, or a thread failed
            done.put(None)

    with ThreadPoolExecutor(workers) as pool:
        try:
            running = _started(pool, work, workers)
            begun.set()
            with phase(WAIT):
                for _ in running:
                    while (n_bytes := done.get()) is not None:
                        progress(n_bytes)
        finally:
            queue.close()
            begun.set()
    for thread in running:
        thread.result()


def _started(pool: ThreadPoolExecutor, work: Callable[[int], None], workers: int) -> list[Future[None]]:
    bytearray(workers * _FIRST_STEPS)  # a thread that gets no memory never says that it runs, and Python waits for it
    try:
        return [pool.submit(work, number) for number in range(1, workers + 1)]
    except RuntimeError as error:  # a limit on processes or memory
        raise UsageError(
            f"{workers} threads cannot be started: {error}", hint="give a smaller number with --threads"
        ) from error


class _SharedItems(Generic[T]):
    """Items that several threads take, until none is left or it is closed."""

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
