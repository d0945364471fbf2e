"""Sums of float32 values with the same bits as torch's. The bits depend on the order of additions.

Source: `cascade_sum` in torch's SumKernel.cpp, which adds 8 lanes at a time on every CPU. Threads of torch share a sum
of 32,768 values or more, and then its last bits depend on how many they are: this is the sum of one thread.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LANES, _IN_FLIGHT, _LEVELS = 8, 4, 4


def cascade_sum(pieces: Iterable[Floats], count: int) -> Floats:
    """The sum of all values, in float32: eight lanes with four sums each, and the values left over at the end.

    Partial sums over powers of two keep small values from being lost next to a large sum. The memory is a few times
    that of one piece.

    Args:
        pieces: The values in order, in vectors of any length.
        count: How many values there are.

    Returns:
        One value.

    Example:
        >>> cascade_sum([np.arange(50, dtype=np.float32), np.ones(50, np.float32)], 100)
        array([1275.], dtype=float32)
    """
    width = LANES if count >= LANES else 1
    n_rounds = count // width // _IN_FLIGHT
    power = max(4, (n_rounds - 1).bit_length() // 4)
    step, done = 1 << power, 0
    levels = np.zeros((_LEVELS, _IN_FLIGHT, width), np.float32)
    rest = np.zeros(0, np.float32)
    for piece in pieces:
        values = np.concatenate((rest, piece))
        n_blocks = len(values) // (step * levels[0].size)
        used = n_blocks * step * levels[0].size
        for block in _summed(values[:used].reshape(n_blocks, step, _IN_FLIGHT, width).swapaxes(0, 1)):
            levels[1] += block
            done += step
            for level in range(2, _LEVELS):
                if done & ((step - 1) << ((level - 1) * power)):
                    break
                levels[level] += levels[level - 1]
                levels[level - 1] = 0
        rest = values[used:]
    n_rounds = len(rest) // levels[0].size
    for values in rest[: n_rounds * levels[0].size].reshape(n_rounds, _IN_FLIGHT, width):
        levels[0] += values
    sums = _summed(levels)
    rest = rest[n_rounds * levels[0].size :]
    n_vectors = len(rest) // width
    for vector in rest[: n_vectors * width].reshape(n_vectors, width):
        sums[0] += vector
    return _summed(np.concatenate((rest[n_vectors * width :], _summed(sums)))[:, None])


def _summed(terms: Floats) -> Floats:
    """The terms of the first axis, added one after the other."""
    total = np.zeros(terms.shape[1:], np.float32)
    for term in terms:
        total += term
    return total
