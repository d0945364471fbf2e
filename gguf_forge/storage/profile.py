"""Measures where the time of a run goes: the seconds of each phase, for each thread.

A thread is in one phase at a time, which is the innermost that it entered. So the phases of a thread add up to its
time. A context variable holds the thread's watch. So several runs in one process do not disturb each other, and a run
that is not measured only looks at this variable.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

PLAN, READ, CONVERT, QUANTIZE = "plan", "read", "convert", "quantize"
WRITE, SYNC, WAIT = "write", "sync", "wait"
PHASE_WORDS = {
    PLAN: "headers, tokenizer, types and offsets",
    READ: "weights from the source",
    CONVERT: "rounding, unpacking and reordering weights",
    QUANTIZE: "packing blocks",
    WRITE: "to the output",
    SYNC: "until the bytes are on the disk",
    WAIT: "for other threads",
}
PHASES = tuple(PHASE_WORDS)


def _no_time() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass
class Watch:
    """The time of one thread.

    Attributes:
        thread: The thread's name.
        seconds: Wall-clock seconds by phase.
        busy: Seconds of processor time by phase. In the remaining time the thread waited for a disk or a processor.
    """

    thread: str
    seconds: defaultdict[str, float] = field(default_factory=_no_time)
    busy: defaultdict[str, float] = field(default_factory=_no_time)
    _phase: str = WAIT
    _since: float = field(default_factory=time.perf_counter)
    _busy_since: float = field(default_factory=time.thread_time)

    def enter(self, phase: str) -> str:
        """Enters another phase and returns the one that ended."""
        now, busy, ended = time.perf_counter(), time.thread_time(), self._phase
        self.seconds[ended] += now - self._since
        self.busy[ended] += busy - self._busy_since
        self._phase, self._since, self._busy_since = phase, now, busy
        return ended

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Counts the time of the block as this phase."""
        before = self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)


_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)
_NOT_MEASURED = nullcontext()


@dataclass
class Profile:
    """The watches of one run. The watch of its main thread comes first.

    Example:
        >>> profile = Profile()
        >>> with profile.thread("main"), phase(READ):
        ...     data = b"".join([b"x", b"y"])
        >>> [(watch.thread, sorted(watch.seconds)) for watch in profile.watches]
        [('main', ['read', 'wait'])]
    """

    watches: list[Watch] = field(default_factory=list, init=False)

    @contextmanager
    def thread(self, name: str) -> Iterator[None]:
        """Measures this thread until the end of the block."""
        watch = Watch(name)
        self.watches.append(watch)
        before = _WATCH.set(watch)
        try:
            yield
        finally:
            watch.enter(WAIT)
            _WATCH.reset(before)

    def as_object(self) -> list[Mapping[str, object]]:
        """The profile for scripts: for each thread its name, and its seconds and busy seconds by phase."""
        return [
            {"thread": watch.thread, "seconds": _rounded(watch.seconds), "busy": _rounded(watch.busy)}
            for watch in self.watches
        ]


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds[phase], 3) for phase in PHASES if phase in seconds}


def phase(name: str) -> AbstractContextManager[None]:
    """Counts the time of the block as this phase of the thread. It does nothing if the thread is not measured."""
    watch = _WATCH.get()
    return _NOT_MEASURED if watch is None else watch.during(name)


def measured(profile: Profile | None, thread: str) -> AbstractContextManager[None]:
    """`profile.thread(thread)`, or a block that measures nothing if there is no profile."""
    return _NOT_MEASURED if profile is None else profile.thread(thread)
