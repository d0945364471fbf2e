"""Output files. They are written at offsets, and get their names together when all are complete."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gguf_forge.storage.source import Source


@dataclass(frozen=True)
class Output:
    """A file that will be written.

    Attributes:
        path: Its path.
        size: Its size in bytes.
        fingerprint: `name=digest` words. At least one differs if a run would write other bytes.
        mode: Its permissions, which it has from the beginning; None for the usual permissions of a new file.
    """

    path: Path
    size: int
    fingerprint: str = ""
    mode: int | None = None


class Sink(Protocol):
    """A file of known size that is being written. Any thread may call its methods.

    Bytes that are never written are zero.
    """

    def write_at(self, offset: int, data: memoryview) -> None:
        """Writes all of `data` (bytes).

        Raises:
            OutputError: the file cannot be written.
        """
        ...

    def copy_from(self, source: Source, source_offset: int, offset: int, nbytes: int) -> None:
        """Copies bytes from a source.

        Raises:
            InputError: the source cannot be read, or became shorter.
            OutputError: the file cannot be written.
        """
        ...

    def has(self, offset: int, nbytes: int) -> bool:
        """Whether an earlier run finished these bytes."""
        ...

    def finished(self, offset: int, nbytes: int) -> None:
        """Notes that these bytes are written. A run that resumes this one does not write them again."""
        ...


class Publish(Protocol):
    """The function of a storage that makes files. They get their names if the block succeeds, and vanish otherwise."""

    def __call__(
        self, outputs: Sequence[Output], *, overwrite: bool, resume: bool = False
    ) -> AbstractContextManager[Sequence[Sink]]:
        """New files, in the order of `outputs`.

        Args:
            outputs: The files that will be written.
            overwrite: Whether they may replace existing files.
            resume: Whether to continue from the files of a stopped run, and to keep unfinished files if this run is
                stopped.

        Raises:
            RefusedError: another run is writing one of the files; or one exists and may not be replaced.
            OutputError: a file cannot be written. An old file with its name is unchanged.
        """
        ...
