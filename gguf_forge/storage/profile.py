"""Where the time of a run goes: seconds of each phase, thread by thread.

A thread is in one phase at a time, the innermost that it entered, so the phases of a thread add up to its time. Threads
find their watch in a context variable: runs in one process do not see each other, and where nobody measures, entering
a phase is a look at that variable.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

PLAN = "plan"  # headers, tokenizer, metadata, types and offsets
READ = "read"
CONVERT = "convert"  # what an expression computes, rounding to the base type, unpacking
QUANTIZE = "quantize"
WRITE = "write"
SYNC = "sync"  # until the bytes are on the disk and the file has its name
WAIT = "wait"  # for other threads
PHASES = (PLAN, READ, CONVERT, QUANTIZE, WRITE, SYNC, WAIT)


def _no_time() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass
class Watch:
    """One thread's time.

    Attributes:
        thread: What it is called.
        seconds: By phase, as a clock on the wall counts them.
        busy: By phase, those that a processor worked; the rest is waiting for a disk or for a free processor.
    """

    thread: str
    seconds: defaultdict[str, float] = field(default_factory=_no_time)
    busy: defaultdict[str, float] = field(default_factory=_no_time)
    _phase: str = WAIT
    _since: float = field(default_factory=time.perf_counter)
    _busy_since: float = field(default_factory=time.thread_time)

    def enter(self, phase: str) -> str:
        """Goes over to another phase; the one that ended."""
        now, busy, ended = time.perf_counter(), time.thread_time(), self._phase
        self.seconds[ended] += now - self._since
        self.busy[ended] += busy - self._busy_since
        self._phase, self._since, self._busy_since = phase, now, busy
        return ended


_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@dataclass
class Profile:
    """The watches of one run, that of its main thread first.

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
        """Measures this thread, to the end of the block."""
        watch = Watch(name)
        self.watches.append(watch)
        before = _WATCH.set(watch)
        try:
            yield
        finally:
            watch.enter(WAIT)
            _WATCH.reset(before)

    def as_object(self) -> list[Mapping[str, object]]:
        """For scripts: for each thread its name, and seconds and busy seconds by phase."""
        return [
            {"thread": watch.thread, "seconds": _rounded(watch.seconds), "busy": _rounded(watch.busy)}
            for watch in self.watches
        ]


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(seconds[phase], 3) for phase in PHASES if phase in seconds}


@contextmanager
def phase(name: str) -> Iterator[None]:
    """What this thread does in the block is of this phase; nothing if nobody measures it."""
    watch = _WATCH.get()
    if watch is None:
        yield
        return
    before = watch.enter(name)
    try:
        yield
    finally:
        watch.enter(before)


def measured(profile: Profile | None, thread: str) -> AbstractContextManager[None]:
    """`profile.thread`, if there is a profile."""
    return nullcontext() if profile is None else profile.thread(thread)
