"""Sines and cosines that are bit-identical to torch on x86-64 CPUs with AVX-512, and positions made of them.

torch passes float32 arrays to the vector library of Intel's MKL (vsSin, vsCos, high accuracy). Its results equal those
of subtracting the nearest multiple of pi, evaluating one polynomial and rounding once. They are not always the nearest
floats. The coefficients below were found by linear programming. They were compared with torch on all floats from 1/32
to pi/2, on 100 million floats from 0 to 1500, and on the positions of all widths from 64 to 4096 in steps of 32: all
bits are equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gguf_forge.kernels.binding import exp_values

# The coefficients of r^3, r^5, r^7 and r^9.
_COEFFICIENTS = tuple(
    float.fromhex(text)
    for text in ("-0x1.55554bc836624p-3", "0x1.110ed3804ea8cp-7", "-0x1.9f6ffeeacc0c1p-13", "0x1.5dbdf0e9200ebp-19")
)
# pi as the sum of its first 37 bits, whose multiples are exact, and the rest.
_PI_HIGH, _PI_LOW = float.fromhex("0x1.921fb5444p+1"), float.fromhex("0x1.68c234c4c6629p-38")


def sine(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sine of each value.

    Example:
        >>> sine(np.array([0.0, 1.0], np.float32)).tolist()
        [0.0, 0.8414709568023682]
    """
    return _wave(x, 0.0)


def cosine(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of each value: the sine of the value plus pi/2."""
    return _wave(x, 0.5)


def _wave(x: NDArray[np.float32], half_turns: float) -> NDArray[np.float32]:
    wide = x.astype(np.float64)
    turns = np.rint(wide / np.pi + half_turns)
    r = (wide - (turns - half_turns) * _PI_HIGH) - (turns - half_turns) * _PI_LOW
    c3, c5, c7, c9 = _COEFFICIENTS
    z = r * r
    p = r + r * (z * (c3 + z * (c5 + z * (c7 + z * c9))))
    return np.where(turns.astype(np.int64) & 1, -p, p).astype(np.float32)


def sinusoids(length: int, channels: int) -> NDArray[np.float32]:
    """The positions of Whisper's encoder. Each row has the sines of falling frequencies, then their cosines.

    Source: SinusoidsPositionEmbedding of transformers, as llama.cpp's converter computes it.
    """
    count = channels // 2
    step = np.float32(-(np.log(10000) / (count - 1)))
    frequencies = exp_values(step * np.arange(count, dtype=np.float32))
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
    return np.concatenate([sine(angles), cosine(angles)], axis=1)
