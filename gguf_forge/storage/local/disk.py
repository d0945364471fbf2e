"""One thin function for each file operation of a run.

Callers write `disk.pwrite(...)`, so that tests can replace a function of this module by one that fails at the n-th
call. In this way the tests reach every place where a disk can fail. All functions raise OSError like the system calls,
and like these may process fewer bytes than requested.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Error numbers from file systems and kernels that lack an operation.
UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK})

# Opening a pipe that somebody else put there does not wait for a writer.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_PRIVATE = os.O_CLOEXEC | os.O_NONBLOCK | _NO_LINK

# Whether the system can reach a name through an open folder.
HAS_HANDLES = {os.open, os.stat, os.link, os.rename, os.unlink, os.mkdir, os.rmdir} <= os.supports_dir_fd


@dataclass(frozen=True)
class Name:
    """A name in a folder.

    Attributes:
        path: Its path.
        folder: The descriptor of the open folder; None if the name is reached by its path.
    """

    path: Path
    folder: int | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def called(self) -> str | Path:
        """What system calls get along with `folder`."""
        return self.path if self.folder is None else self.path.name


def open_read(path: Path) -> int:
    """Opens a file for reading. A pipe or a terminal that has the name meanwhile is opened too, without waiting."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def open_folder(path: Path) -> int:
    """Opens a folder. It follows links, as for every path that the user names."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_subfolder(at: Name) -> int:
    """Opens one of our own folders. It does not follow a link that somebody else put there."""
    return os.open(at.called, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | _NO_LINK, dir_fd=at.folder)


def open_own(at: Name) -> int:
    """Opens one of our own files for reading and writing. It does not follow a link that somebody else put there."""
    return os.open(at.called, os.O_RDWR | _PRIVATE, dir_fd=at.folder)


def create(at: Name, mode: int = 0o666) -> int:
    """Creates a file for reading and writing. The process's umask applies to `mode`.

    It raises FileExistsError if anything has this name.
    """
    return os.open(at.called, os.O_RDWR | os.O_CREAT | os.O_EXCL | _PRIVATE, mode, dir_fd=at.folder)


def close(descriptor: int) -> None:
    os.close(descriptor)


def status(path: Path) -> os.stat_result:
    """The status of a file; for a link, the status of the file that it leads to."""
    return path.stat()


def status_at(at: Name) -> os.stat_result:
    """The status of a file in a folder; for a link, the status of the file that it leads to."""
    return os.stat(at.called, dir_fd=at.folder)


def status_of_name(at: Name) -> os.stat_result:
    """The status of the name itself, even if it is a link."""
    return os.stat(at.called, dir_fd=at.folder, follow_symlinks=False)


def status_of_open(descriptor: int) -> os.stat_result:
    return os.fstat(descriptor)


def change_mode(descriptor: int, mode: int) -> None:
    os.fchmod(descriptor, mode)


def open_direct(descriptor: int) -> int:
    """Opens an open file a second time with `O_DIRECT`, for writing whole blocks past the page cache."""
    if not hasattr(os, "O_DIRECT"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    # The path leads to the descriptor. The file's own name may meanwhile belong to another file.
    return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)


def pread(descriptor: int, into: memoryview, offset: int) -> int:
    """Reads into `into`, from its beginning. Returns the number of bytes, which is 0 at the end of the file."""
    return os.preadv(descriptor, [into], offset)


def pread_all(descriptor: int, nbytes: int, offset: int) -> bytes:
    """Reads `nbytes` bytes, or fewer if the file ends earlier."""
    data, done = bytearray(nbytes), 0
    while done < nbytes and (got := pread(descriptor, memoryview(data)[done:], offset + done)):
        done += got
    return bytes(data[:done])


def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
    """Writes bytes at an offset. Returns the number of bytes that were written."""
    return os.pwrite(descriptor, data, offset)


def pwrite_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def copy_range(source: int, target: int, nbytes: int, source_offset: int, offset: int) -> int:
    """Copies with `copy_file_range`: the kernel copies the bytes, or the file system shares the blocks.

    Returns the number of bytes that were copied, which is 0 at the end of the source.
    """
    if not hasattr(os, "copy_file_range"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return os.copy_file_range(source, target, nbytes, source_offset, offset)


def allocate(descriptor: int, size: int) -> None:
    """Makes the file at least `size` bytes, with room on the disk for all of them.

    This uses the system call `fallocate` itself. `posix_fallocate` of C libraries writes to every block of the file if
    the file system lacks the call.
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
    """Waits until the file and its metadata are on the disk (`fsync`)."""
    os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """Waits until the bytes are on the disk, but not the file's times (`fdatasync`)."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(descriptor: int) -> None:
    """Waits until the names in an open folder are on the disk, if the file system supports this."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def lock(descriptor: int) -> bool:
    """Locks the file (`flock`) until it is closed or the process ends. False if another process has it locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def rename(at: Name, to: Name) -> None:
    """Renames a file. An existing file with the new name is replaced."""
    os.replace(at.called, to.called, src_dir_fd=at.folder, dst_dir_fd=to.folder)


def link(at: Name, to: Name) -> None:
    """Gives a file a second name (a hard link). It raises FileExistsError if anything has this name."""
    os.link(at.called, to.called, src_dir_fd=at.folder, dst_dir_fd=to.folder, follow_symlinks=False)


def unlink(at: Name) -> None:
    os.unlink(at.called, dir_fd=at.folder)


def make_folder(at: Name) -> None:
    """Makes a folder. It raises FileExistsError if anything has this name."""
    os.mkdir(at.called, dir_fd=at.folder)


def list_folder(descriptor: int) -> list[str]:
    """The names of all entries of an open folder, in no particular order."""
    return os.listdir(descriptor)


def remove_folder(at: Name) -> None:
    """Removes an empty folder."""
    os.rmdir(at.called, dir_fd=at.folder)
