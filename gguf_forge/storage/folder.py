"""A model's folder: small files that are read whole, and large ones that are read in any order."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Protocol

from gguf_forge.errors import InputError
from gguf_forge.storage.source import Source


class Folder(Protocol):
    """A folder whose files are found by name. A name with `/` leads to a file in a subfolder."""

    @property
    def path(self) -> Path:
        """The path of the folder in messages; `path_of` gives that of a file. It is not used to open anything."""
        ...

    @property
    def name(self) -> str:
        """The name of the folder itself. It may be the name of the model."""
        ...

    def path_of(self, name: str) -> Path:
        """The path of a file, in messages and for what is recorded of it."""
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

    def read_small(self, name: str, limit: int | None = None) -> bytes:
        """The content of a whole file.

        Args:
            name: Its name.
            limit: The largest size in bytes; None for the usual one of files with this name (`limits.py`).

        Raises:
            InputError: the file is missing, cannot be read, is no regular file, or is larger than the limit.
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


def read_text(folder: Folder, name: str, limit: int | None = None) -> str:
    """A whole UTF-8 text, as `decoded` gives it.

    Raises:
        InputError: the file cannot be read as in `read_small`, or is not UTF-8.
    """
    return decoded(folder.read_small(name, limit), folder.path_of(name))


def decoded(data: bytes, path: Path) -> str:
    """The content of a UTF-8 file as a text with `\\n` line ends, as Python's text mode gives them.

    Raises:
        InputError: the file is not UTF-8.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"not valid UTF-8 at byte {error.start}"
        raise InputError(problem, file=path, hint="download it again, or save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
