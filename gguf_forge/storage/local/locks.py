"""Locks on files of our own: a lock ends with its process, so what is locked is in work, and what is not was left."""

from __future__ import annotations

import os
from pathlib import Path

from gguf_forge.storage.local import disk


def locked_file(path: Path) -> int | None:
    """Makes or opens a file and locks it; None if another process has it locked.

    The lock lasts until the descriptor that this returns is closed. A file system without locks keeps nobody out.

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
                continue  # the process that had it has just ended well
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
    """Is it this very file that has the name?"""
    try:
        return os.path.samestat(disk.status_of_name(path), disk.status_of_open(descriptor))
    except FileNotFoundError:
        return False
