"""Locks on our own files (`flock`).

A lock ends with its process. So a locked file is in use, and a file without a lock was left by a process that was
killed.
"""

from __future__ import annotations

import os

from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name


def locked_file(name: Name) -> int | None:
    """Makes or opens a file and locks it; None if another process has it locked.

    The lock lasts until the returned descriptor is closed. On a file system without locks, every caller succeeds.

    Raises:
        OSError: the file cannot be made or locked.
    """
    while True:
        try:
            descriptor = disk.create(name)
        except FileExistsError:
            try:
                descriptor = disk.open_own(name)
            except FileNotFoundError:
                continue  # The process that had the file has just finished and removed it.
        try:
            is_locked = _lock(descriptor)
            is_current = is_at(descriptor, name)
        except BaseException:
            disk.close(descriptor)
            raise
        if is_locked and is_current:
            return descriptor
        disk.close(descriptor)
        if is_current:
            return None


def _lock(descriptor: int) -> bool:
    try:
        return disk.lock(descriptor)
    except OSError as error:
        if error.errno not in disk.UNSUPPORTED:
            raise
        return True


def is_at(descriptor: int, name: Name) -> bool:
    """Whether the name is still that of the open file."""
    try:
        return os.path.samestat(disk.status_of_name(name), disk.status_of_open(descriptor))
    except FileNotFoundError:
        return False
