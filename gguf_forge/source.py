"""Byte ranges of a file. Local files are mapped; a reader over HTTP is another `Source`."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError


class Source(Protocol):
    """A file whose bytes can be read in any order. All names in messages come from `path`."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> int: ...

    def view(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """The bytes `offset` to `offset + nbytes`, read-only; all of them or an InputError."""
        ...

    def release(self, offset: int, nbytes: int) -> None:
        """These bytes are not needed soon: what is held of them in memory may go."""
        ...


class ByteRange(NamedTuple):
    """Some bytes of a source."""

    source: Source
    offset: int
    nbytes: int

    def release(self) -> None:
        self.source.release(self.offset, self.nbytes)


class FileIdentity(NamedTuple):
    """What tells that a file is still the one that was opened."""

    size: int
    mtime_ns: int
    inode: int


class MappedFile:
    """A regular file, mapped read-only: nothing is read before it is looked at.

    After `close` no new views can be made; views made before stay valid as long as they live.

    Raises:
        InputError: the file is missing, cannot be read, or is not a regular file.

    Example:
        >>> with MappedFile(Path("model.safetensors")) as file:
        ...     length = int.from_bytes(file.view(0, 8), "little")
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            if not S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
                raise InputError("not a regular file", file=path)
            with path.open("rb") as file:
                self.identity = _identity(os.fstat(file.fileno()))
                # An empty file cannot be mapped.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.identity.size else None
        except OSError as error:
            raise InputError(f"the file cannot be read: {error.strerror or error}", file=path) from error

    @property
    def size(self) -> int:
        return self.identity.size

    def view(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """The bytes `offset` to `offset + nbytes` as a read-only uint8 array, without a copy.

        Raises:
            InputError: the range is not inside the file, or the file is closed.
        """
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise InputError(
                f"bytes {offset} to {offset + nbytes} are outside the file of {self.size} bytes",
                file=self.path,
            )
        if nbytes == 0:
            return np.frombuffer(b"", np.uint8)
        if self._map is None:
            raise InputError("the file was read after it was closed", file=self.path)
        return np.frombuffer(self._map, np.uint8, nbytes, offset)

    def release(self, offset: int, nbytes: int) -> None:
        """Takes these bytes out of the process's resident memory; a later view reads them again."""
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (offset + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if self._map is not None and start < stop and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def check_unchanged(self) -> None:
        """Raise InputError if another file is at `path` now, or this one was written to."""
        try:
            now = _identity(self.path.stat())
        except OSError as error:
            raise InputError(f"the file vanished while it was read: {error.strerror}", file=self.path) from error
        if now != self.identity:
            raise InputError("the file changed while it was read", file=self.path, hint="run again when it is complete")

    def close(self) -> None:
        mapped, self._map = self._map, None
        if mapped is not None:
            try:
                mapped.close()
            except BufferError:
                return  # views still live: the last one unmaps the file

    def __enter__(self) -> MappedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _identity(status: os.stat_result) -> FileIdentity:
    return FileIdentity(status.st_size, status.st_mtime_ns, status.st_ino)
