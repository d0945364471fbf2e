"""Byte ranges of files, wherever they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """A file whose bytes can be read in any order, until it is closed. All names in messages come from `path`."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> int: ...

    @property
    def identity(self) -> str:
        """What tells the file from others, and from itself before it was written to; what it is made of is the
        storage's own affair."""
        ...

    def read(self, offset: int, nbytes: int, *, at: int = 0) -> NDArray[np.uint8]:
        """The bytes `offset` to `offset + nbytes` in memory of their own; all of them or an InputError. `at` as for
        `buffers.fresh`."""
        ...

    def copy_range(self, target: int, nbytes: int, offset: int, at: int) -> int:
        """Lets the system copy bytes into an open file, without a way through this process.

        Args:
            target: The descriptor of the file that they go to.
            nbytes: How many at most.
            offset: Where they begin here.
            at: Where they begin there.

        Returns:
            How many were copied; 0 if this is not the way.
        """
        ...

    def check_unchanged(self) -> None:
        """Raises InputError if this is not the file any more that was opened."""
        ...

    def close(self) -> None:
        """Nothing is read after that."""
        ...
