"""Threads that take tasks one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

from gguf_forge.engine.profile import WAIT, Profile, measured, phase

Progress = Callable[[int], None]
T = TypeVar("T")


def in_threads(
    tasks: Iterable[T], run: Callable[[T], int], workers: int, progress: Progress, profile: Profile | None = None
) -> None:
    """Runs all tasks; the first error of one ends the others, and is raised when no thread works any more.

    Args:
        tasks: Taken by the threads, one at a time.
        run: Is given a task; its answer is told to `progress`, in the calling thread.
        workers: How many threads.
        progress: Is told what was done.
        profile: Is told where the time of each thread goes.
    """
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
