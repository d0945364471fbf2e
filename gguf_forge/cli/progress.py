"""The progress of a conversion on standard error: a bar on a terminal, and now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.filesize import decimal

from gguf_forge.cli.options import Messages
from gguf_forge.cli.streams import logging_to, standard_error, telling
from gguf_forge.cli.tables import duration, line
from gguf_forge.planning.file_plan import FilePlan
from gguf_forge.run_settings import Observer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

# A line is printed after each `_SHARE` of the run. Two lines are at least `_SOONEST` and at most `_LATEST` seconds
# apart.
_SHARE, _SOONEST, _LATEST = 0.1, 5.0, 60.0


@contextmanager
def observing(messages: Messages) -> Iterator[Observer]:
    """The observer that suits standard error. While a bar is shown, log lines are printed above it."""
    to = standard_error()
    with logging_to(messages, to):
        if messages.quiet:
            yield Observer()
        elif to.is_terminal and not to.is_dumb_terminal:
            with _bars(to) as progress:
                yield Bar(progress)
        else:
            yield Lines(to)


@contextmanager
def counting(what: str, total: int, messages: Messages) -> Iterator[Callable[[int], None]]:
    """Counts the bytes that are done: with a bar on a terminal, log lines above it, elsewhere with a line a minute."""
    to = standard_error()
    with logging_to(messages, to):
        if messages.quiet:
            yield lambda n_bytes: None
            return
        if not to.is_terminal or to.is_dumb_terminal:
            yield Lines(to, what, total).advance
            return
        with _bars(to) as progress:
            task = progress.add_task(what, total=total)
            yield lambda n_bytes: progress.advance(task, n_bytes)


def _bars(to: Console | None) -> Progress:
    """Bars on a console; None for the one that rich chooses, which is the cell of a notebook."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(complete_style="cyan"),  # rich's own is red, as an alarm is
        TextColumn("{task.percentage:>3.0f}%"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=to,
    )


class Bar(Observer):
    """One bar for all files of a run."""

    _task: TaskID

    def __init__(self, progress: Progress):
        self._progress = progress

    def begin(self, files: Sequence[FilePlan]) -> None:
        self.begin_other(", ".join(file.file_type.name for file in files), sum(file.bytes_to_write for file in files))

    def begin_other(self, what: str, n_bytes: int) -> None:
        self._task = self._progress.add_task(what, total=n_bytes)

    def advance(self, n_bytes: int) -> None:
        self._progress.advance(self._task, n_bytes)

    def resumed(self, n_bytes: int) -> None:
        """The bar begins there. What was there does not count for the speed."""
        self._progress.reset(self._task, completed=int(self._progress.tasks[-1].completed) + n_bytes)


class ProgressBar(Bar):
    """A bar on standard error, or in a notebook, for `observer=` of a public function. One object serves one run.

    Example:
        >>> gguf_forge.convert("Qwen3-0.6B", observer=gguf_forge.ProgressBar())  # doctest: +SKIP
    """

    def __init__(self) -> None:
        super().__init__(_bars(None))

    def begin_other(self, what: str, n_bytes: int) -> None:
        self._progress.start()
        super().begin_other(what, n_bytes)

    def advance(self, n_bytes: int) -> None:
        super().advance(n_bytes)
        self._stop_at_the_end()

    def resumed(self, n_bytes: int) -> None:
        super().resumed(n_bytes)
        self._stop_at_the_end()

    def _stop_at_the_end(self) -> None:
        if self._progress.finished:
            self._progress.stop()


class Lines(Observer):
    """Prints a line for each tenth of a run. Short runs do not print too many lines, and long ones are never silent."""

    def __init__(self, to: Console, what: str = "", total: int = 0):
        self._console = to
        self._start(what, total)

    def complete(self, files: Sequence[FilePlan]) -> None:
        for file in files:
            self._say(f"{file.path}: complete already, left as it is")

    def begin(self, files: Sequence[FilePlan]) -> None:
        self._start(", ".join(file.path.name for file in files), sum(file.bytes_to_write for file in files))
        for file in files:
            self._say(f"{file.path}: writing {decimal(file.size)}")

    def begin_other(self, what: str, n_bytes: int) -> None:
        self._start(what, n_bytes)
        self._say(f"{what}: {decimal(n_bytes)}")

    def _start(self, names: str, total: int) -> None:
        self._names, self._total = names, max(total, 1)
        self._done = self._resumed = 0
        self._started = self._said_at = time.monotonic()
        self._said = 0.0

    def resumed(self, n_bytes: int) -> None:
        self._done += n_bytes
        self._resumed += n_bytes
        self._said = self._done / self._total
        self._say(f"{self._names}: {self._said:4.0%} is there from an earlier run")

    def advance(self, n_bytes: int) -> None:
        self._done += n_bytes
        now, share = time.monotonic(), self._done / self._total
        waited = now - self._said_at
        if waited < _SOONEST or (share - self._said < _SHARE and waited < _LATEST):
            return
        self._said, self._said_at = share, now
        speed = max(self._done - self._resumed, 1) / max(now - self._started, 1e-9)
        left = (self._total - self._done) / speed
        self._say(f"{self._names}: {share:4.0%}, {decimal(int(speed))}/s, {duration(left)} left")

    def _say(self, words: str) -> None:
        with telling():
            self._console.print(line(words), soft_wrap=True)
