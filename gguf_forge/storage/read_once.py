"""Byte ranges that several readers want are read from their file once, and kept for a while.

A declaration may cut one tensor into several, and the change of an adapter needs a whole factor for every row. Readers
of a block that `serving` begins get such bytes from memory, if they are still there. What was not used for the longest
time goes first.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import numpy as np
from numpy.typing import NDArray

from gguf_forge.storage.buffers import fresh
from gguf_forge.storage.source import ByteRange, Source


class _Range:
    """What is kept of a range: pieces that do not overlap, by where they begin."""

    def __init__(self, stop: int):
        self.stop = stop
        self.reading = threading.Lock()
        self.pieces: dict[int, NDArray[np.uint8]] = {}
        self._starts: list[int] = []

    def find(self, at: int) -> tuple[int, int]:
        """The beginning of the piece with a byte, or that byte itself if there is none; and where this ends."""
        place = bisect_right(self._starts, at)
        if place and at < (stop := (start := self._starts[place - 1]) + len(self.pieces[start])):
            return start, stop
        return at, self._starts[place] if place < len(self._starts) else self.stop

    def add(self, start: int, data: NDArray[np.uint8]) -> None:
        self.pieces[start] = data
        insort(self._starts, start)

    def drop(self, start: int) -> int:
        self._starts.remove(start)
        return len(self.pieces.pop(start))


class ReadOnce:
    """Keeps what was read of some ranges.

    Args:
        ranges: Which. They do not overlap.
        capacity: The most bytes that are kept.
    """

    def __init__(self, ranges: Iterable[ByteRange], capacity: int):
        self._ranges: dict[int, dict[int, _Range]] = {}
        for each in sorted(ranges, key=lambda each: each.offset):
            self._ranges.setdefault(id(each.source), {})[each.offset] = _Range(each.offset + each.nbytes)
        self._starts = {source: list(of_source) for source, of_source in self._ranges.items()}
        self._left = self._capacity = capacity
        self._used: OrderedDict[tuple[int, int], _Range] = OrderedDict()
        self._lock = threading.Lock()

    def serving(self) -> AbstractContextManager[None]:
        """`read` takes what is kept here, until the end of the block."""
        return self._serving() if self._ranges else _NOTHING

    @contextmanager
    def _serving(self) -> Iterator[None]:
        before = _SERVING.set(self)
        try:
            yield
        finally:
            _SERVING.reset(before)

    def has(self, source: Source, offset: int) -> bool:
        """Whether a byte is in one of the ranges."""
        return self._range(source, offset) is not None

    def read(self, source: Source, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """Bytes of a file, in a buffer of their own."""
        kept = self._range(source, offset)
        if kept is not None and offset + nbytes <= kept.stop:
            with kept.reading:  # who wants the same bytes waits for them
                data = self._read(kept, source, offset, nbytes)
            if data is not None:
                return data
        return source.read(offset, nbytes)

    def _read(self, kept: _Range, source: Source, offset: int, nbytes: int) -> NDArray[np.uint8] | None:
        """Bytes of a range. None if there is no room to keep those that are missing."""
        out, at, stop = fresh(nbytes), offset, offset + nbytes
        while at < stop:
            start, until = self._piece(kept, at)
            until = min(until, stop)
            data = self._data(kept, start)
            if data is None:
                if not self._make_room(until - at):
                    return None
                data = self._kept(kept, source, at, until - at)
            out[at - offset : until - offset] = data[at - start : until - start]
            at = until
        return out

    def _range(self, source: Source, offset: int) -> _Range | None:
        starts = self._starts.get(id(source), [])
        place = bisect_right(starts, offset)
        found = self._ranges[id(source)][starts[place - 1]] if place else None
        return found if found is not None and offset < found.stop else None

    def _piece(self, kept: _Range, at: int) -> tuple[int, int]:
        with self._lock:
            return kept.find(at)

    def _data(self, kept: _Range, start: int) -> NDArray[np.uint8] | None:
        with self._lock:
            if start not in kept.pieces:
                return None
            self._used.move_to_end((id(kept), start))
            return kept.pieces[start]

    def _make_room(self, nbytes: int) -> bool:
        """Takes room for bytes that are about to be read, and says whether there is so much."""
        with self._lock:
            if nbytes > self._capacity:
                return False
            while self._left < nbytes and self._used:
                (_, oldest), of = self._used.popitem(last=False)
                self._left += of.drop(oldest)
            if self._left < nbytes:  # what others are about to read takes it
                return False
            self._left -= nbytes
            return True

    def _kept(self, kept: _Range, source: Source, start: int, nbytes: int) -> NDArray[np.uint8]:
        """Reads bytes for which there is room, and keeps them."""
        try:
            data = source.read(start, nbytes)
        except BaseException:
            with self._lock:
                self._left += nbytes
            raise
        with self._lock:
            kept.add(start, data)
            self._used[id(kept), start] = kept
        return data


_SERVING: ContextVar[ReadOnce | None] = ContextVar("read_once", default=None)
_NOTHING = nullcontext()


def read(source: Source, offset: int, nbytes: int) -> NDArray[np.uint8]:
    """Bytes of a file in a new buffer; from memory, if a block serves them."""
    serving = _SERVING.get()
    return source.read(offset, nbytes) if serving is None else serving.read(source, offset, nbytes)


def is_kept_for_others(source: Source, offset: int) -> bool:
    """Whether `read` serves a byte that others read, too."""
    serving = _SERVING.get()
    return serving is not None and serving.has(source, offset)
