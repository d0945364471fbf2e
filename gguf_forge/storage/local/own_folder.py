"""Folders of single runs, for what they have not finished: they go when their run ends, unless it is killed.

Each has a lock beside it that its run holds. A run that begins removes what killed ones left: those whose lock is free.
Some network file systems keep locks to the machine that took them. So a lock also names its machine, and what a run of
another one left has to lie untouched for a day as well.
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
# A run that is wrongly taken for dead ends with an error, and no bytes are wrong.
_DEAD_SECONDS = 24 * 3600


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent` that is this run's alone, to the end of the block.

    Raises:
        OSError: it cannot be made.
    """
    path, lock = _claimed(parent)
    try:
        disk.pwrite_all(lock, memoryview(_this_machine()), 0)
        now = disk.status_of_open(lock).st_mtime  # by the clock of the disk, as all others
        _remove_dead(parent, path, now)
        disk.make_folder(path)
        yield path
    finally:
        with suppress(OSError):
            _remove(path)
        with suppress(OSError):
            disk.close(lock)


def remove_all_dead(parent: Path) -> None:
    """Removes what killed runs left in `parent`, when nothing is needed of them any more, whatever machine it was."""
    _remove_dead(parent, None, float("inf"))


def _claimed(parent: Path) -> tuple[Path, int]:
    while True:
        path = parent / f"{PREFIX}{secrets.token_hex(8)}"
        descriptor = locked_file(_lock_of(path))
        if descriptor is not None:  # or somebody took it for that of a dead run before it was locked
            return path, descriptor


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_LOCK}")


def _this_machine() -> bytes:
    """As it runs now: no lock outlasts that."""
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
        # where there are no locks nobody can tell, and this raises
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
    """The lock last: a folder is never without."""
    with suppress(FileNotFoundError):
        for left in disk.list_folder(path):
            disk.unlink(left)
        disk.remove_folder(path)
    disk.unlink(_lock_of(path))
