"""Locks on our own files (`flock`).

A lock ends with its process. So a locked file is in use, and a file without a lock was left by a process that was
killed.
"""

from __future__ import annotations

import os
from pathlib import Path

from gguf_forge.storage.local import disk


def locked_file(path: Path) -> int | None:
    """Makes or opens a file and locks it; None if another process has it locked.

    The lock lasts until the returned descriptor is closed. On a file system without locks, every caller succeeds.

    Raises:
        OSError: the file cannot be made or locked.
    """
    while True:
        try:
            descriptor = disk.create(path)
        except FileExistsError:
            try:
                descriptor = disk.open_own(path)
            except FileNotFoundError:
                continue  # The process that had the file has just finished and removed it.
        try:
            is_locked = _lock(descriptor)
            is_current = is_at(descriptor, path)
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


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(disk.status_of_name(path), disk.status_of_open(descriptor))
    except FileNotFoundError:
        return False
