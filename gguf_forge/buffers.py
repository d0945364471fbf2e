"""Memory for rows."""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

# Allocators keep smaller pieces for the next one, which is fast; larger ones they keep in a pool for each thread, too.
_OWN_PAGES = 4 << 20


def fresh(nbytes: int) -> NDArray[np.uint8]:
    """So many bytes of any value; a large piece goes back to the system as soon as nobody uses it.

    Example:
        >>> fresh(3).shape
        (3,)
    """
    if nbytes < _OWN_PAGES:
        return np.empty(nbytes, np.uint8)
    pages = mmap.mmap(-1, nbytes)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without: small pages do as well
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)
