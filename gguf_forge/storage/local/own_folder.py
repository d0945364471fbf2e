"""Temporary folders of single runs. A run removes its folder when it ends, unless it is killed.

Next to each folder is a lock file, which the run keeps locked. A new run removes the folders of killed runs, which are
those whose lock file is not locked. On some network file systems, other machines do not see a lock. So the lock file
also names its machine, and a folder of another machine is removed only if it was not changed for a day.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gguf_forge.storage.local import disk
from gguf_forge.storage.local.locks import is_at, locked_file

PREFIX = "run-"
_LOCK = ".lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_MACHINE = 256
# The age at which a folder of another machine counts as left by a dead run. If its run is still alive, that run ends
# with an error and writes no wrong bytes.
_DEAD_SECONDS = 24 * 3600


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent` that only this run uses, until the end of the block.

    Raises:
        OSError: the folder cannot be made.
    """
    path, lock = _claimed(parent)
    try:
        disk.pwrite_all(lock, memoryview(_this_machine()), 0)
        now = disk.status_of_open(lock).st_mtime  # The disk's clock also made the times of the other folders.
        _remove_dead(parent, path, now)
        disk.make_folder(path)
        yield path
    finally:
        with suppress(OSError):
            _remove(path)
        with suppress(OSError):
            disk.close(lock)


def remove_all_dead(parent: Path) -> None:
    """Removes the folders of all dead runs in `parent`, of every machine, without waiting a day.

    It is for a time when nothing from these runs is needed any more.
    """
    _remove_dead(parent, None, float("inf"))


def _claimed(parent: Path) -> tuple[Path, int]:
    while True:
        path = parent / f"{PREFIX}{secrets.token_hex(8)}"
        descriptor = locked_file(_lock_of(path))
        if descriptor is not None:  # None: another run took the lock file for a dead run's before we locked it.
            return path, descriptor


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_LOCK}")


def _this_machine() -> bytes:
    """An identifier of this machine since its last start, because no lock survives a restart."""
    try:
        found = _BOOT_ID.read_bytes()
    except OSError:
        found = b""
    return (found.strip() or platform.node().encode())[:_MAX_MACHINE]


def _remove_dead(parent: Path, own: Path | None, now: float) -> None:
    for lock in disk.list_folder(parent):
        path = lock.with_name(lock.name.removesuffix(_LOCK))
        if lock.name.startswith(PREFIX) and path not in (lock, own):
            with suppress(OSError):
                _remove_if_dead(path, now)


def _remove_if_dead(path: Path, now: float) -> None:
    lock = _lock_of(path)
    descriptor = disk.open_own(lock)
    try:
        # On a file system without locks this raises an error, so nothing is removed there.
        if not disk.lock(descriptor) or not is_at(descriptor, lock):
            return
        is_of_this_machine = disk.pread_all(descriptor, _MAX_MACHINE, 0) == _this_machine()
        if is_of_this_machine or now - _last_change(path) > _DEAD_SECONDS:
            _remove(path)
    finally:
        disk.close(descriptor)


def _last_change(path: Path) -> float:
    seen = [_lock_of(path)]
    with suppress(FileNotFoundError):
        seen += [path, *disk.list_folder(path)]
    return max(disk.status_of_name(each).st_mtime for each in seen)


def _remove(path: Path) -> None:
    """Removes a folder and then its lock file, so that a folder never lacks its lock file."""
    with suppress(FileNotFoundError):
        for left in disk.list_folder(path):
            disk.unlink(left)
        disk.remove_folder(path)
    disk.unlink(_lock_of(path))
