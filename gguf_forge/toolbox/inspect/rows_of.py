"""Rows of any tensor as float32, a few at a time, by several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from math import gcd
from typing import TypeVar

from gguf_forge.engine.forge import default_threads
from gguf_forge.errors import UsageError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Stored

# Half a mebibyte of float32. It stays in the cache of a core, and the allocator can mostly reuse memory for it.
RANGE_VALUES = 1 << 17

_LONGEST_ROW = 1 << 20
_ROW_BLOCKS = 4096

T = TypeVar("T")
R = TypeVar("R")


def row_ranges(expr: TensorExpr, *, values: int = RANGE_VALUES, by_matrix: bool = False) -> Iterator[tuple[int, int]]:
    """The ranges (start, stop) of rows that a tensor is best taken in: about `values` values each.

    Args:
        expr: The tensor. Of one that is read by columns, more rows are taken together.
        values: What to hold at once.
        by_matrix: No range crosses from one matrix (one expert) to the next.

    Example:
        >>> from gguf_forge.tensors.stored import Constant
        >>> import numpy as np
        >>> list(row_ranges(Constant(np.zeros((5, 8), np.float32)), values=16))
        [(0, 2), (2, 4), (4, 5)]
    """
    if 0 in expr.shape:
        return
    step = max(1, values // expr.shape[-1], expr.rows_together)
    border = expr.matrix_rows if by_matrix or expr.is_columnwise else expr.n_rows
    for first in range(0, expr.n_rows, border):
        for start in range(first, first + border, step):
            yield start, min(start + step, first + border)


def with_short_rows(stored: TensorExpr) -> TensorExpr:
    """A tensor whose rows are too long to hold, seen as shorter ones: the same values in the same order.

    Only a stored tensor can be seen this way. Any other tensor, and one with rows of ordinary length, is given back
    unchanged.
    """
    n = stored.shape[-1]
    if not isinstance(stored, Stored) or n <= _LONGEST_ROW:
        return stored
    block = stored.dtype.block_elements
    short = block * gcd(n // block, _ROW_BLOCKS)
    return Stored(stored.name, stored.source, stored.offset, (stored.n_rows * (n // short), short), stored.dtype)


def in_order(task: Callable[[T], R], items: Iterable[T], *, threads: int | None = None) -> Iterator[R]:
    """`map` by several threads: results come in the order of the items, and only a few are held.

    Args:
        task: Is called by the threads.
        items: Are taken as they are needed.
        threads: Defaults to the processors this process may use.

    Raises:
        UsageError: fewer threads than one.

    Example:
        >>> list(in_order(abs, [-1, 2, -3], threads=2))
        [1, 2, 3]
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    workers = threads or default_threads()
    left = iter(items)
    few = list(islice(left, 2))
    if len(few) < 2:  # as for most tensors of a file with very many: a thread would take longer than its work
        yield from map(task, few)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in chain(few, left):
                pending.append(pool.submit(task, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
