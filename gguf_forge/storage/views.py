"""Other views of sources: a part of one as a source, and several ones behind one another as one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.storage.buffers import fresh
from gguf_forge.storage.source import Source


class Section:
    """The bytes of a source from `start` on, `size` of them, as a source of their own. Closing it closes nothing."""

    def __init__(self, source: Source, start: int, size: int):
        self._source, self._start = source, start
        self.path, self.size, self.identity = source.path, size, source.identity

    def read(self, offset: int, nbytes: int, *, at: int = 0) -> NDArray[np.uint8]:
        _check_range(self, offset, nbytes)
        return self._source.read(self._start + offset, nbytes, at=at)

    def read_pieces(self, offset: int, nbytes: int, step: int, count: int) -> NDArray[np.uint8]:
        _check_range(self, offset, step * (count - 1) + nbytes)
        return self._source.read_pieces(self._start + offset, nbytes, step, count)

    def copy_range(self, target: int, nbytes: int, offset: int, at: int) -> int:
        return self._source.copy_range(target, nbytes, self._start + offset, at)

    def check_unchanged(self) -> None:
        self._source.check_unchanged()

    def close(self) -> None:
        """The source is open until whoever opened it closes it."""


class Concatenated:
    """Sources behind one another, as one. Messages name it by the path of the first."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = tuple(sources)
        *self._starts, self.size = accumulate((source.size for source in sources), initial=0)
        self.path: Path = sources[0].path
        self.identity = " ".join(source.identity for source in sources)

    def read(self, offset: int, nbytes: int, *, at: int = 0) -> NDArray[np.uint8]:
        _check_range(self, offset, nbytes)
        data = fresh(nbytes, at=at)
        for source, start in zip(self._sources, self._starts, strict=True):
            first, last = max(offset, start), min(offset + nbytes, start + source.size)
            if first < last:
                data[first - offset : last - offset] = source.read(first - start, last - first)
        return data

    def read_pieces(self, offset: int, nbytes: int, step: int, count: int) -> NDArray[np.uint8]:
        return np.stack([self.read(offset + step * number, nbytes) for number in range(count)])

    def copy_range(self, target: int, nbytes: int, offset: int, at: int) -> int:
        for source, start in zip(self._sources, self._starts, strict=True):
            if start <= offset < start + source.size:
                return source.copy_range(target, min(nbytes, start + source.size - offset), offset - start, at)
        return 0

    def check_unchanged(self) -> None:
        for source in self._sources:
            source.check_unchanged()

    def close(self) -> None:
        for source in self._sources:
            source.close()


def _check_range(source: Source, offset: int, nbytes: int) -> None:
    if offset < 0 or nbytes < 0 or offset + nbytes > source.size:
        raise InputError(f"bytes {offset} to {offset + nbytes} are outside of {source.size} bytes", file=source.path)
