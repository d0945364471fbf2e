"""Reading a file from front to back, with every length checked against what is left before it is used."""

from __future__ import annotations

import struct
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.packed_items import LENGTH_BYTES, PackedStrings
from gguf_forge.gguf_file.values import ByteOrder
from gguf_forge.storage.memory import SMALL_NEED, check_memory
from gguf_forge.storage.source import Source

# Bytes that are read at a time. Most items in a header have only a few bytes, so one read serves many of them.
_WINDOW = 1 << 18

# The most bytes of memory that all values of a header may take. The largest real headers, which contain a
# tokenizer.json, take 100 MiB.
MAX_COST = 1 << 28
# What a string of an array costs in addition to its bytes: the time to find it, and the memory for its offset.
_COST_OF_ITEM = 64

_ODD = "it is damaged, or was written so: compare its SHA-256 with that of its publisher"


class HeaderEnds(InputError):
    """A header has fewer bytes left than it says."""


class Cursor:
    """A place in a file, and how numbers are stored in it.

    Every method that moves forward raises InputError if fewer bytes are left than it needs. The error names the file,
    the byte, and what was read there.
    """

    def __init__(self, source: Source, byte_order: ByteOrder, at: int = 0):
        self.source = source
        self.byte_order = byte_order
        self.at = at
        self._cost = 0
        self._window, self._window_at = np.zeros(0, np.uint8), at

    @property
    def left(self) -> int:
        return self.source.size - self.at

    def broken(self, problem: str, tensor: str | None = None, hint: str = _ODD) -> InputError:
        """An error at this place."""
        return InputError(f"{problem}, before byte {self.at}", file=self.source.path, tensor=tensor, hint=hint)

    def ended(self, problem: str) -> HeaderEnds:
        """An error at this place: the file has fewer bytes than it says."""
        hint = "the file is cut short or damaged: download it again"
        return HeaderEnds(f"{problem}, before byte {self.at}", file=self.source.path, hint=hint)

    def take(self, nbytes: int, what: str) -> NDArray[np.uint8]:
        """The next bytes, read-only."""
        if nbytes > self.left:
            raise self.ended(f"{what} of {nbytes} bytes does not fit into the {self.left} that are left")
        taken = self._look(nbytes)
        self.at += nbytes
        return taken

    def _look(self, nbytes: int) -> NDArray[np.uint8]:
        """`nbytes` bytes from here. The caller has checked that the file has them."""
        start = self.at - self._window_at
        if not 0 <= start <= len(self._window) - nbytes:
            start, self._window_at = 0, self.at
            self._window = self.source.read(self.at, min(max(nbytes, _WINDOW), self.left))
            self._window.setflags(write=False)
        return self._window[start : start + nbytes]

    def numbers(self, layout: str, what: str) -> tuple[Any, ...]:
        """Numbers in the notation of `struct`, without its byte order."""
        layout = self.byte_order + layout
        return struct.unpack(layout, self.take(struct.calcsize(layout), what).data)

    def number(self, layout: str, what: str) -> Any:
        return self.numbers(layout, what)[0]

    def count(self, what: str, *, each: int, limit: int) -> int:
        """Reads a count: at most `limit`, and no more than fit into the rest of the file at `each` bytes an item."""
        count = int(self.number("Q", f"the number of {what}"))
        return self.checked_count(count, what, each=each, limit=limit)

    def checked_count(self, count: int, what: str, *, each: int, limit: int) -> int:
        if count > limit:
            raise self.broken(f"{count} {what} are more than the {limit} that this version reads")
        if count * each > self.left:
            raise self.ended(f"{count} {what} do not fit into the {self.left} bytes that are left")
        return count

    def held(self, nbytes: int, what: str) -> NDArray[np.uint8]:
        """Reads bytes that the caller will keep in memory, and counts them."""
        self.spend(nbytes, what)
        return _alone(self.take(nbytes, what))

    def spend(self, cost: int, what: str) -> None:
        """Counts memory that the caller will hold. A header that takes too much is refused."""
        before, self._cost = self._cost // SMALL_NEED, self._cost + cost
        if self._cost > MAX_COST:
            raise self.broken(
                f"with {what}, the header takes more than the {MAX_COST >> 20} MiB that this version reads"
            )
        if self._cost // SMALL_NEED > before:
            check_memory(max(cost, SMALL_NEED), "its header", self.source.path)

    def string(self, what: str, limit: int = MAX_COST) -> bytes:
        length = int(self.number("Q", f"the length of {what}"))
        if length > limit:
            raise self.broken(f"{what} has {length} bytes; {limit} are allowed")
        return self.held(length, what).tobytes()

    def strings(self, count: int, what: str) -> PackedStrings:
        """Reads `count` strings. Only their offsets are found; no string is decoded."""
        self.spend(count * _COST_OF_ITEM, what)
        first, starts = self.at, [np.zeros(1, np.int64)]
        found = 0
        while found < count:
            ends = self._ends(self._window[self.at - self._window_at :], count - found)
            if not ends:
                ends = self._ends(self._look(min(_WINDOW, self.left)), count - found)
            if not ends or self.at + ends[-1] > self.source.size:
                raise self.ended(f"{what} has a string that does not fit into the {self.left} bytes that are left")
            self.spend(ends[-1], what)
            starts.append(np.array(ends) + (self.at - first))
            found += len(ends)
            self.at += ends[-1]
        raw = self.source.read(first, self.at - first)
        return PackedStrings(_alone(raw), np.concatenate(starts), self.byte_order)

    def _ends(self, here: NDArray[np.uint8], count: int) -> list[int]:
        """The ends of at most `count` strings in these bytes. The last one may end beyond the bytes."""
        window = here.data
        length_at = struct.Struct(f"{self.byte_order}Q").unpack_from
        end, last = 0, len(window) - LENGTH_BYTES
        ends: list[int] = []
        add = ends.append
        for _ in repeat(None, count):  # this loop runs half a million times for a large vocabulary, so it is kept cheap
            if end > last:
                break
            end += LENGTH_BYTES + length_at(window, end)[0]
            add(end)
        return ends


def _alone(taken: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A read-only copy of these bytes, so that the window around them can be freed."""
    alone: NDArray[np.uint8] = taken.copy()
    alone.setflags(write=False)
    return alone
