"""A model's folder: small files that are read whole, and large ones that are read in any order."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Protocol

from gguf_forge.storage.source import Source

SMALL_BYTES = 256 << 20  # The largest tokenizer.json files have about 35 MB.


class Folder(Protocol):
    """A folder whose files are found by name. A name with `/` leads to a file in a subfolder."""

    @property
    def path(self) -> Path:
        """The path of the folder in messages; `path / name` is that of a file. It is not used to open anything."""
        ...

    @property
    def name(self) -> str:
        """The name of the folder itself. It may be the name of the model."""
        ...

    def names(self) -> tuple[str, ...]:
        """The names of all entries of the folder, sorted; empty if the folder does not exist.

        Raises:
            InputError: the folder cannot be read.
        """
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file or folder with this name. A broken link does not count."""
        ...

    def read_small(self, name: str, limit: int = SMALL_BYTES) -> bytes:
        """The content of a whole file.

        Raises:
            InputError: the file is missing, cannot be read, or has more than `limit` bytes.
        """
        ...

    def open(self, name: str) -> Source:
        """Opens a file, which can be read in any order until it is closed.

        Raises:
            InputError: the file is missing or cannot be read.
        """
        ...

    def subfolder(self, name: str) -> Folder:
        """A subfolder, which need not exist."""
        ...


def read_beginning(folder: Folder, name: str, nbytes: int) -> bytes:
    """The first `nbytes` bytes of a file, or all of a shorter file.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    with closing(folder.open(name)) as file:
        return file.read(0, min(nbytes, file.size)).tobytes()
