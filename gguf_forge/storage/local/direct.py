"""Writes with `O_DIRECT`, which bypasses the page cache, from the buffers that rows are packed in.

The page cache copies every byte, and finding free pages for it costs more than the copy. An output file is written once
and may be larger than memory, so the cache does not help it. `O_DIRECT` requires that addresses, offsets and sizes are
multiples of the disk's block size. So the bytes of a buffer before its first whole block and after its last one go
through the page cache, in pages that `O_DIRECT` does not write.
"""

from __future__ import annotations

import errno
from contextlib import suppress

import numpy as np

from gguf_forge.storage.buffers import ALIGNMENT
from gguf_forge.storage.local import disk

# Errors of an `O_DIRECT` write that a normal write does not have. The disk has larger blocks; or a lock on the file
# blocks writes through a second descriptor, as on SMB shares.
_REFUSED = frozenset({errno.EINVAL, errno.EACCES, errno.EAGAIN})

# Smaller writes go through the page cache, because waiting for the disk costs more than the copy.
_LEAST = 64 << 10


class DirectWriter:
    """Writes to an open file at offsets, with `O_DIRECT` where the system has it."""

    def __init__(self, descriptor: int):
        self._plain = descriptor
        self._direct: int | None = None
        with suppress(OSError):  # Some file systems lack `O_DIRECT`.
            self._direct = disk.open_direct(descriptor)

    @property
    def is_direct(self) -> bool:
        return self._direct is not None

    def write_all(self, data: memoryview, offset: int) -> None:
        """Writes all of `data` (bytes), with as many calls as needed.

        Only data from `buffers.fresh`, with `offset` as its `at`, is aligned so that `O_DIRECT` can write it.
        """
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
        """Closes the second descriptor, which it opened itself. The given descriptor stays open."""
        descriptor, self._direct = self._direct, None
        if descriptor is not None:
            with suppress(OSError):  # An error here loses nothing, because the file is already synced.
                disk.close(descriptor)
