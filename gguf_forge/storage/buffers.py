"""Memory for rows."""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

# Allocators keep smaller pieces for the next one, which is fast; larger ones they keep in a pool for each thread, too.
_OWN_PAGES = 4 << 20


# Disks and file systems move blocks of this size, or of a part of it. No page is written both past the cache and by it.
ALIGNMENT = max(4096, mmap.PAGESIZE)


def fresh(nbytes: int, *, at: int = 0) -> NDArray[np.uint8]:
    """So many bytes of any value; a large piece goes back to the system as soon as nobody uses it.

    Args:
        nbytes: How many.
        at: The offset that they are for in a file: blocks of it begin at addresses that are whole blocks, too.

    Example:
        >>> fresh(3).shape
        (3,)
    """
    pages = _pages(nbytes + ALIGNMENT)
    start = (at - pages.__array_interface__["data"][0]) % ALIGNMENT
    return pages[start : start + nbytes]


def _pages(nbytes: int) -> NDArray[np.uint8]:
    if nbytes < _OWN_PAGES:
        return np.empty(nbytes, np.uint8)
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without: small pages do as well
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)
