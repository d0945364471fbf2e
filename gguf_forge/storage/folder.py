"""A model's folder: small files that are read whole, and large ones that are read in any order."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Protocol

from gguf_forge.storage.source import Source

SMALL_BYTES = 256 << 20  # the largest tokenizer.json are about 35 MB


class Folder(Protocol):
    """Files under names. A name may lead to a folder of the folder, with `/` between the two."""

    @property
    def path(self) -> Path:
        """What messages call the folder; `path / name` is what they call a file of it. Nothing else opens it."""
        ...

    @property
    def name(self) -> str:
        """What the folder itself is called, which may name the model."""
        ...

    def names(self) -> tuple[str, ...]:
        """All that is in the folder, in order; nothing if it is not there.

        Raises:
            InputError: the folder cannot be read.
        """
        ...

    def has(self, name: str) -> bool:
        """Is there anything under this name, and not a link that leads nowhere?"""
        ...

    def read_small(self, name: str, limit: int = SMALL_BYTES) -> bytes:
        """A whole file.

        Raises:
            InputError: the file is missing, cannot be read, or has more than `limit` bytes.
        """
        ...

    def open(self, name: str) -> Source:
        """A file to read in any order, until it is closed.

        Raises:
            InputError: the file is missing or cannot be read.
        """
        ...

    def subfolder(self, name: str) -> Folder:
        """A folder of the folder, whether it is there or not."""
        ...


def read_beginning(folder: Folder, name: str, nbytes: int) -> bytes:
    """The first bytes of a file, at most so many.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    with closing(folder.open(name)) as file:
        return file.read(0, min(nbytes, file.size)).tobytes()
