"""Writing past the page cache, from the buffers that rows are packed in.

A page cache copies every byte, and finding free pages for it costs more than the copy; what is written once, and may be
larger than memory, has no use for it. The system wants addresses, offsets and sizes of whole blocks of the disk: what a
piece has before its first and after its last one goes through the cache, in pages of their own.
"""

from __future__ import annotations

import errno
from contextlib import suppress

import numpy as np

from gguf_forge.storage.buffers import ALIGNMENT
from gguf_forge.storage.local import disk

# Its blocks are larger; or a lock on a file, as on SMB shares, stands between two openings of it.
_REFUSED = frozenset({errno.EINVAL, errno.EACCES, errno.EAGAIN})

# Less than this is not worth a wait for the disk.
_LEAST = 64 << 10


class DirectWriter:
    """Writes to an open file at offsets, past the page cache where the system can."""

    def __init__(self, descriptor: int):
        self._plain = descriptor
        self._direct: int | None = None
        with suppress(OSError):  # a file system without
            self._direct = disk.open_direct(descriptor)

    @property
    def is_direct(self) -> bool:
        return self._direct is not None

    def write_all(self, data: memoryview, offset: int) -> None:
        """Writes all of `data` (bytes), however many calls that takes; pieces from `buffers.fresh` with the same `at`
        are those that go past the cache."""
        address = np.frombuffer(data, np.uint8).__array_interface__["data"][0] if self._direct is not None else 0
        while data:
            written = self._write_some(data, offset, address)
            data, offset, address = data[written:], offset + written, address + written

    def _write_some(self, data: memoryview, offset: int, address: int) -> int:
        head = -offset % ALIGNMENT
        if self._direct is None or len(data) < _LEAST or (address - offset) % ALIGNMENT:
            return disk.pwrite(self._plain, data, offset)
        if head:
            return disk.pwrite(self._plain, data[:head], offset)
        try:
            return disk.pwrite(self._direct, data[: len(data) // ALIGNMENT * ALIGNMENT], offset)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            return disk.pwrite(self._plain, data, offset)

    def close(self) -> None:
        """Closes what it opened, not the file that it was given."""
        descriptor, self._direct = self._direct, None
        if descriptor is not None:
            with suppress(OSError):  # all that counts has been synced
                disk.close(descriptor)
