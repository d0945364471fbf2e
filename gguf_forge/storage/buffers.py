"""Memory buffers for the rows of tensors."""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

# Buffers from this size on get an `mmap` of their own, because the allocator would keep their memory in a pool for each
# thread. It also keeps the memory of smaller buffers, which makes the next ones fast and costs little.
OWN_PAGES = 4 << 20


# The unit of `O_DIRECT` writes. It is a multiple of the block size of disks and file systems. It is also a multiple of
# the page size, so that no page is written both with `O_DIRECT` and through the page cache.
ALIGNMENT = max(4096, mmap.PAGESIZE)


def fresh(nbytes: int, *, at: int = 0) -> NDArray[np.uint8]:
    """A new buffer with undefined values. The memory of a large one returns to the system as soon as nobody uses it.

    Args:
        nbytes: The size of the buffer.
        at: The offset in a file that the bytes are for. The buffer's address is chosen so that blocks of the file begin
            at aligned addresses, as `O_DIRECT` needs it.

    Example:
        >>> fresh(3).shape
        (3,)
    """
    pages = _pages(nbytes + ALIGNMENT)
    start = (at - pages.__array_interface__["data"][0]) % ALIGNMENT
    return pages[start : start + nbytes]


def _pages(nbytes: int) -> NDArray[np.uint8]:
    if nbytes < OWN_PAGES:
        return np.empty(nbytes, np.uint8)
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # Some kernels lack huge pages. Small pages work too, only slower.
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)
