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
from gguf_forge.storage.local.held_folder import HeldFolder
from gguf_forge.storage.local.locks import is_at, locked_file

PREFIX = "run-"
_LOCK = ".lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_MACHINE = 256
# The age at which a folder of another machine counts as left by a dead run. If its run is still alive, that run ends
# with an error and writes no wrong bytes.
_DEAD_SECONDS = 24 * 3600


@contextmanager
def own_folder(parent: HeldFolder) -> Iterator[HeldFolder]:
    """A new folder in `parent` that only this run uses, until the end of the block.

    Raises:
        OSError: the folder cannot be made.
    """
    name, lock = _claimed(parent)
    try:
        disk.pwrite_all(lock, memoryview(_this_machine()), 0)
        now = disk.status_of_open(lock).st_mtime  # The disk's clock also made the times of the other folders.
        _remove_dead(parent, name, now)
        disk.make_folder(parent / name)
        with parent.subfolder(name) as folder:
            yield folder
    finally:
        with suppress(OSError):
            _remove(parent, name)
        with suppress(OSError):
            disk.close(lock)


def remove_all_dead(parent: HeldFolder) -> None:
    """Removes the folders of all dead runs in `parent`, of every machine, without waiting a day.

    It is for a time when nothing from these runs is needed any more.
    """
    _remove_dead(parent, None, float("inf"))


def _claimed(parent: HeldFolder) -> tuple[str, int]:
    while True:
        name = f"{PREFIX}{secrets.token_hex(8)}"
        descriptor = locked_file(parent / f"{name}{_LOCK}")
        if descriptor is not None:  # None: another run took the lock file for a dead run's before we locked it.
            return name, descriptor


def _this_machine() -> bytes:
    """An identifier of this machine since its last start, because no lock survives a restart."""
    try:
        found = _BOOT_ID.read_bytes()
    except OSError:
        found = b""
    return (found.strip() or platform.node().encode())[:_MAX_MACHINE]


def _remove_dead(parent: HeldFolder, own: str | None, now: float) -> None:
    for lock in parent.names():
        name = lock.removesuffix(_LOCK)
        if lock.startswith(PREFIX) and name not in (lock, own):
            with suppress(OSError):
                _remove_if_dead(parent, name, now)


def _remove_if_dead(parent: HeldFolder, name: str, now: float) -> None:
    lock = parent / f"{name}{_LOCK}"
    descriptor = disk.open_own(lock)
    try:
        # On a file system without locks this raises an error, so nothing is removed there.
        if not disk.lock(descriptor) or not is_at(descriptor, lock):
            return
        is_of_this_machine = disk.pread_all(descriptor, _MAX_MACHINE, 0) == _this_machine()
        if is_of_this_machine or now - _last_change(parent, name) > _DEAD_SECONDS:
            _remove(parent, name)
    finally:
        disk.close(descriptor)


def _last_change(parent: HeldFolder, name: str) -> float:
    times = [disk.status_of_name(parent / f"{name}{_LOCK}").st_mtime]
    with suppress(FileNotFoundError), parent.subfolder(name) as folder:
        seen = [parent / name, *(folder / left for left in folder.names())]
        times += [disk.status_of_name(each).st_mtime for each in seen]
    return max(times)


def _remove(parent: HeldFolder, name: str) -> None:
    """Removes a folder and then its lock file, so that a folder never lacks its lock file."""
    with suppress(FileNotFoundError):
        with parent.subfolder(name) as folder:
            for left in folder.names():
                disk.unlink(folder / left)
        disk.remove_folder(parent / name)
    disk.unlink(parent / f"{name}{_LOCK}")
