"""Every file operation of a run, one thin function for each.

Callers say `disk.pwrite(...)`: tests replace functions of this module by ones that fail at the n-th call, and so meet
every place where a disk can fail. All raise OSError as the system does, and may do less than they are asked to where
the system may.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

# What file systems and kernels answer that do not know an operation.
UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK})

_PRIVATE = os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)


def open_read(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def open_own(path: Path) -> int:
    """Opens a file of our own for reading and writing; not through a link that somebody put there."""
    return os.open(path, os.O_RDWR | _PRIVATE)


def create(path: Path, mode: int = 0o666) -> int:
    """A new file, for reading and writing, of the mode that the process allows of `mode`; FileExistsError if anything
    has the name."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _PRIVATE, mode)


def close(descriptor: int) -> None:
    os.close(descriptor)


def status(path: Path) -> os.stat_result:
    """Of the file that a link leads to."""
    return path.stat()


def status_of_name(path: Path) -> os.stat_result:
    """Of the name itself, even if it is a link."""
    return path.lstat()


def status_of_open(descriptor: int) -> os.stat_result:
    return os.fstat(descriptor)


def change_mode(descriptor: int, mode: int) -> None:
    os.fchmod(descriptor, mode)


def open_direct(descriptor: int) -> int:
    """Opens an open file once more, for writing whole blocks past the page cache."""
    if not hasattr(os, "O_DIRECT"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    # not by its name, which may be another file's by now
    return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)


def pread(descriptor: int, into: memoryview, offset: int) -> int:
    """Fills `into` from its beginning; how many bytes it was, 0 at the end of the file."""
    return os.preadv(descriptor, [into], offset)


def pread_all(descriptor: int, nbytes: int, offset: int) -> bytes:
    """So many bytes, or fewer if the file ends before."""
    data, done = bytearray(nbytes), 0
    while done < nbytes and (got := pread(descriptor, memoryview(data)[done:], offset + done)):
        done += got
    return bytes(data[:done])


def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
    """How many bytes were written."""
    return os.pwrite(descriptor, data, offset)


def pwrite_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def copy_range(source: int, target: int, nbytes: int, source_offset: int, offset: int) -> int:
    """Lets the kernel copy, or the file system share the blocks; how many bytes it was, 0 at the end of the source."""
    if not hasattr(os, "copy_file_range"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return os.copy_file_range(source, target, nbytes, source_offset, offset)


def allocate(descriptor: int, size: int) -> None:
    """Makes the file at least `size` bytes, with room on the disk for all of them.

    The system's own call: what stands in for it in C libraries writes to every block of the file.
    """
    call = _fallocate()
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while (failed := call(descriptor, size)) == errno.EINTR:
        pass
    if failed:
        raise OSError(failed, os.strerror(failed))


@cache
def _fallocate() -> Callable[[int, int], int] | None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

    def call(descriptor: int, size: int) -> int:
        return ctypes.get_errno() if function(descriptor, 0, 0, size) else 0

    return call


def truncate(descriptor: int, size: int) -> None:
    os.ftruncate(descriptor, size)


def sync(descriptor: int) -> None:
    """Waits until the file is on the disk."""
    os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """Waits until the bytes are on the disk, whatever is with the times of the file."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk, where the file system knows how."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Takes the file for this process, until it is closed or the process ends; False if another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def rename(path: Path, to: Path) -> None:
    """Gives a file another name, of which an existing file loses it."""
    path.replace(to)


def link(path: Path, to: Path) -> None:
    """Gives a file a second name; FileExistsError if anything has it."""
    os.link(path, to, follow_symlinks=False)


def unlink(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    """FileExistsError if anything has the name."""
    path.mkdir()


def list_folder(path: Path) -> list[Path]:
    """All that is in a folder, in no order."""
    return list(path.iterdir())


def remove_folder(path: Path) -> None:
    """Of a folder in which nothing is."""
    path.rmdir()
