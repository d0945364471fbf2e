"""Files that are made: written at offsets, and named together when all are complete."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gguf_forge.storage.source import Source


@dataclass(frozen=True)
class Output:
    """A file to be.

    Attributes:
        path: Its name.
        size: Its bytes.
        fingerprint: `name=digest` words, of which one differs wherever other bytes would be written.
        mode: Its permissions, from the beginning; None for those of any new file.
    """

    path: Path
    size: int
    fingerprint: str = ""
    mode: int | None = None


class Sink(Protocol):
    """A file of known size that is being written. All methods may be called by any thread.

    Bytes that are not written are zero.
    """

    def write_at(self, offset: int, data: memoryview) -> None:
        """Writes all of `data` (bytes).

        Raises:
            OutputError: the file cannot be written.
        """
        ...

    def copy_from(self, source: Source, source_offset: int, offset: int, nbytes: int) -> None:
        """Copies bytes of a source.

        Raises:
            InputError: the source cannot be read, or became shorter.
            OutputError: the file cannot be written.
        """
        ...

    def has(self, offset: int, nbytes: int) -> bool:
        """Did an earlier run finish these bytes?"""
        ...

    def finished(self, offset: int, nbytes: int) -> None:
        """These bytes have been written and, after a stop, need not be again."""
        ...


class Publish(Protocol):
    """How a storage makes files: each has its name when the block ends well, and is abandoned when it does not."""

    def __call__(
        self, outputs: Sequence[Output], *, overwrite: bool, resume: bool = False
    ) -> AbstractContextManager[Sequence[Sink]]:
        """New files, in the order of `outputs`.

        Args:
            outputs: The files to be.
            overwrite: They may replace others.
            resume: Go on from what a stopped run left; and if this one is stopped, leave that.

        Raises:
            RefusedError: another run is writing one of them; or one exists, and may not be replaced.
            OutputError: one cannot be written; nothing has changed under its name.
        """
        ...
