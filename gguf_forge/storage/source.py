"""Input files that are read by byte ranges, wherever they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """A file whose bytes can be read in any order until it is closed. Messages name it by `path`."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> int: ...

    @property
    def identity(self) -> str:
        """A text that differs between files, and changes when the file is written to. Each storage has its own form."""
        ...

    def read(self, offset: int, nbytes: int, *, at: int = 0) -> NDArray[np.uint8]:
        """The bytes from `offset` to `offset + nbytes` in a new buffer. `at` is as in `buffers.fresh`.

        It raises InputError if it cannot read all of them.
        """
        ...

    def read_pieces(self, offset: int, nbytes: int, step: int, count: int) -> NDArray[np.uint8]:
        """`count` pieces of `nbytes` bytes each, (count, nbytes). They begin `step` bytes apart, the first at `offset`.

        It raises InputError if it cannot read all of them.
        """
        ...

    def copy_range(self, target: int, nbytes: int, offset: int, at: int) -> int:
        """Lets the kernel copy bytes into an open file, with `copy_file_range`, without passing through this process.

        Args:
            target: The descriptor of the file that is written.
            nbytes: The most bytes to copy.
            offset: The offset of the bytes in this source.
            at: The offset in the target.

        Returns:
            The number of bytes that were copied; 0 if the kernel cannot copy here, and the caller must read and write.
        """
        ...

    def check_unchanged(self) -> None:
        """Raises InputError if the file was replaced or changed after it was opened."""
        ...

    def close(self) -> None:
        """Closes the file. Reading is an error afterwards."""
        ...


class ByteRange(NamedTuple):
    """Bytes of a file."""

    source: Source
    offset: int
    nbytes: int
