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
from gguf_forge.storage.source import Source

# How much is read at a time: most things in a header are a few bytes.
_WINDOW = 1 << 18

# What all values of a header may cost together. The largest real ones, with a tokenizer.json in them, come to 100 MiB.
MAX_COST = 1 << 28
# A string of an array is held with the others; finding it takes time, and its place is held besides.
_COST_OF_ITEM = 64


class Cursor:
    """A place in a file, and how numbers are stored in it.

    Every method that moves on raises InputError, naming the file, the byte and what was read there, where less is
    left than is asked for.
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

    def broken(self, problem: str, tensor: str | None = None) -> InputError:
        """An error at this place."""
        hint = "the file is damaged or cut short: download it again"
        return InputError(f"{problem}, before byte {self.at}", file=self.source.path, tensor=tensor, hint=hint)

    def take(self, nbytes: int, what: str) -> NDArray[np.uint8]:
        """The next bytes, read-only."""
        if nbytes > self.left:
            raise self.broken(f"{what} of {nbytes} bytes does not fit into the {self.left} that are left")
        taken = self._look(nbytes)
        self.at += nbytes
        return taken

    def _look(self, nbytes: int) -> NDArray[np.uint8]:
        """`nbytes` bytes from here, which are there."""
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
        """How many things follow: at most `limit`, and no more than have room at `each` bytes or more."""
        count = int(self.number("Q", f"the number of {what}"))
        return self.checked_count(count, what, each=each, limit=limit)

    def checked_count(self, count: int, what: str, *, each: int, limit: int) -> int:
        if count > limit:
            raise self.broken(f"{count} {what} are more than the {limit} that this version reads")
        if count * each > self.left:
            raise self.broken(f"{count} {what} do not fit into the {self.left} bytes that are left")
        return count

    def held(self, nbytes: int, what: str) -> NDArray[np.uint8]:
        """The next bytes, which the caller will hold in memory. A header that costs too much is refused."""
        self._spend(nbytes, what)
        return _alone(self.take(nbytes, what))

    def _spend(self, cost: int, what: str) -> None:
        self._cost += cost
        if self._cost > MAX_COST:
            raise self.broken(
                f"with {what}, the header takes more than the {MAX_COST >> 20} MiB that this version reads"
            )

    def string(self, what: str, limit: int = MAX_COST) -> bytes:
        length = int(self.number("Q", f"the length of {what}"))
        if length > limit:
            raise self.broken(f"{what} has {length} bytes; {limit} are allowed")
        return self.held(length, what).tobytes()

    def strings(self, count: int, what: str) -> PackedStrings:
        """`count` strings: where each begins is found, and none is decoded."""
        self._spend(count * _COST_OF_ITEM, what)
        first, starts = self.at, [np.zeros(1, np.int64)]
        found = 0
        while found < count:
            ends = self._ends(self._window[self.at - self._window_at :], count - found)
            if not ends:
                ends = self._ends(self._look(min(_WINDOW, self.left)), count - found)
            if not ends or self.at + ends[-1] > self.source.size:
                raise self.broken(f"{what} has a string that does not fit into the {self.left} bytes that are left")
            self._spend(ends[-1], what)
            starts.append(np.array(ends) + (self.at - first))
            found += len(ends)
            self.at += ends[-1]
        raw = self.source.read(first, self.at - first)
        return PackedStrings(_alone(raw), np.concatenate(starts), self.byte_order)

    def _ends(self, here: NDArray[np.uint8], count: int) -> list[int]:
        """Where strings end in the bytes from here on, at most `count`; the last one may end anywhere."""
        window = here.data
        length_at = struct.Struct(f"{self.byte_order}Q").unpack_from
        end, last = 0, len(window) - LENGTH_BYTES
        ends: list[int] = []
        add = ends.append
        for _ in repeat(None, count):  # half a million times for a large vocabulary
            if end > last:
                break
            end += LENGTH_BYTES + length_at(window, end)[0]
            add(end)
        return ends


def _alone(taken: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same bytes, read-only, without the window or the padding around them."""
    alone: NDArray[np.uint8] = taken.copy()
    alone.setflags(write=False)
    return alone
