"""Files on this machine's disks, which are read at offsets."""

from __future__ import annotations

import os
from contextlib import suppress
from errno import EMFILE, ENOENT
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.storage.buffers import fresh
from gguf_forge.storage.local import disk
from gguf_forge.storage.profile import READ, phase

TOO_MANY_FILES = "allow the process more open files, for example with ulimit -n 4096"
_NO_FILE = "check the spelling of the path, and the folder in which you are"
_AGAIN = "run again when it is complete"


class SourceFile:
    """A regular file, opened read-only.

    The file is read with `pread` and never mapped into memory. Bytes that were read leave memory after their use. If
    the file shrinks or the disk fails, reading raises an error; with `mmap` it would kill the process.

    Raises:
        InputError: the file is missing, cannot be read, or is not a regular file.

    Example:
        >>> with SourceFile(Path("model.safetensors")) as file:  # doctest: +SKIP
        ...     length = int.from_bytes(file.read(0, 8), "little")
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor: int | None = None
        try:
            _refuse_special(disk.status(path), path)  # Opening a device may already do something.
            self.descriptor = disk.open_read(path)
            status = disk.status_of_open(self.descriptor)
            _refuse_special(status, path)
            self.size, self.identity = status.st_size, identity_of(status)
        except OSError as error:
            self.close()
            hint = {EMFILE: TOO_MANY_FILES, ENOENT: _NO_FILE}.get(error.errno or 0)
            raise InputError(f"the file cannot be read: {error.strerror or error}", file=path, hint=hint) from error
        except InputError:
            self.close()
            raise

    def read(self, offset: int, nbytes: int, *, at: int = 0) -> NDArray[np.uint8]:
        """The bytes from `offset` to `offset + nbytes` as a new array.

        Raises:
            InputError: the range is not inside the file, the file is closed, or it cannot be read.
        """
        self._check_range(offset, nbytes)
        return self._read(offset, nbytes, nbytes, 1, fresh(nbytes, at=at))

    def read_pieces(self, offset: int, nbytes: int, step: int, count: int) -> NDArray[np.uint8]:
        """Pieces of `nbytes` bytes that begin `step` bytes apart, as the rows of a new array.

        Raises:
            InputError: as for `read`.
        """
        self._check_range(offset, step * (count - 1) + nbytes)
        return self._read(offset, nbytes, step, count, fresh(count * nbytes)).reshape(count, nbytes)

    def _read(self, offset: int, nbytes: int, step: int, count: int, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.descriptor is None:
            raise InputError("the file was read after it was closed", file=self.path)
        view = data.data
        try:
            with phase(READ):
                for number in range(count):
                    begin, start = number * nbytes, offset + number * step
                    done = 0
                    while done < nbytes:
                        got = disk.pread(self.descriptor, view[begin + done : begin + nbytes], start + done)
                        if got == 0:
                            raise InputError("the file became shorter while it was read", file=self.path, hint=_AGAIN)
                        done += got
        except OSError as error:
            raise InputError(f"the file cannot be read: {error.strerror or error}", file=self.path) from error
        return data

    def copy_range(self, target: int, nbytes: int, offset: int, at: int) -> int:
        if self.descriptor is None:
            return 0
        try:
            return disk.copy_range(self.descriptor, target, nbytes, offset, at)
        except OSError:
            return 0  # The caller then reads and writes, which works or shows which of the two files fails.

    def _check_range(self, offset: int, nbytes: int) -> None:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise InputError(
                f"bytes {offset} to {offset + nbytes} are outside the file of {self.size} bytes", file=self.path
            )

    def check_unchanged(self) -> None:
        """Raises InputError if `path` now names another file, or if this file was written to."""
        try:
            now = identity_of(disk.status(self.path))
        except OSError as error:
            raise InputError(f"the file vanished while it was read: {error.strerror}", file=self.path) from error
        if now != self.identity:
            raise InputError("the file changed while it was read", file=self.path, hint=_AGAIN)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # An error here loses nothing, because the file is only read.
                disk.close(descriptor)

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_special(status: os.stat_result, path: Path) -> None:
    """Raises an error unless this is the status of a regular file."""
    if S_ISDIR(status.st_mode):
        hint = "name a file in it; a model's folder is for `gguf-forge convert`, `plan` and `types`"
        raise InputError("this is a folder, not a file", file=path, hint=hint)
    if not S_ISREG(status.st_mode):
        raise InputError("not a regular file", file=path, hint="devices, pipes and sockets are never read")


def identity_of(status: os.stat_result) -> str:
    """A text that identifies a file and its content.

    The time of the last change of the inode is in it: programs can set the other times back, but not this one.
    """
    return repr((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
