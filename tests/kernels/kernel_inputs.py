"""Inputs for the kernels: adversarial and random, the same on every machine.

All are made with integers and exact floating-point steps from a counter-based generator (splitmix64), so
neither NumPy's version nor the machine changes a bit. `CASES` and `WEIGHTS` map a name to a maker.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def random_bits(seed: int, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """splitmix64 of a counter. Source: Steele, Lea, Flood, "Fast splittable random numbers"."""
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = (np.arange(1, n + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).reshape(shape)


def power_of_two(exponent: NDArray[np.int64]) -> Floats:
    return np.ldexp(np.float32(1), exponent.astype(np.int32)).astype(np.float32)


def uniform(seed: int, shape: tuple[int, ...]) -> Floats:
    """In [-0.5, 0.5)."""
    bits = (random_bits(seed, shape) >> np.uint64(40)).astype(np.int32)
    return (bits - (1 << 23)).astype(np.float32) * np.float32(2**-24)


def gaussian(seed: int, shape: tuple[int, ...]) -> Floats:
    """Nearly: the sum of four uniform numbers, of standard deviation 1.15."""
    bits = random_bits(seed, shape)
    total = sum((bits >> np.uint64(16 * k) & np.uint64(0xFFFF)).astype(np.int32) for k in range(4))
    return (total - 2 * 0xFFFF).astype(np.float32) * np.float32(2**-15)


def heavy(seed: int, shape: tuple[int, ...]) -> Floats:
    """Heavy tails, as of Student's t: doubled with probability 1/2, again with 1/2, and so on up to 2^8."""
    bits = random_bits(seed + 1, shape) & np.uint64(0xFF)
    doublings = sum(((bits & np.uint64((1 << k) - 1)) == 0).astype(np.int64) for k in range(1, 9))
    return gaussian(seed, shape) * power_of_two(doublings)


def scaled_blocks(seed: int, shape: tuple[int, ...], block: int, low: int, high: int) -> Floats:
    """Gaussian, each block times its own power of two in [2^low, 2^high)."""
    count = shape[0] * shape[1] // block
    exponent = (random_bits(seed + 1, (count, 1)) % np.uint64(high - low)).astype(np.int64) + low
    return np.ldexp(gaussian(seed, (count, block)), exponent.astype(np.int32)).reshape(shape)


def outliers(seed: int, shape: tuple[int, ...]) -> Floats:
    x = gaussian(seed, shape)
    far = random_bits(seed + 1, shape) % np.uint64(97) == 0
    return np.where(far, x * np.float32(1024), x)


def ties(seed: int, shape: tuple[int, ...]) -> Floats:
    """Odd multiples of 1/2 up to 15.5, with 16 in each 16 values: halfway between many levels."""
    halves = (random_bits(seed, shape) % np.uint64(32)).astype(np.int64) - 16
    x = (halves.astype(np.float32) + np.float32(0.5)).reshape(-1, 16)
    x[:, 0] = np.where(np.arange(len(x)) % 2, -16, 16)
    return x.reshape(shape)


def equal_extremes(seed: int, shape: tuple[int, ...]) -> Floats:
    """Values of few magnitudes and both signs, so that the greatest magnitude occurs with both."""
    step = (random_bits(seed, shape) % np.uint64(7)).astype(np.int64) - 3
    return step.astype(np.float32) * np.float32(0.3125)


def near_constant(seed: int, shape: tuple[int, ...]) -> Floats:
    ulps = (random_bits(seed, shape) % np.uint64(5)).astype(np.uint32)
    sign = (np.arange(shape[0])[:, None] % 2).astype(np.uint32) << np.uint32(31)
    return (np.uint32(0x3F800000) + ulps | sign).view(np.float32)


def denormals(seed: int, shape: tuple[int, ...]) -> Floats:
    """Of all magnitudes, a few units in the last place included."""
    bits = random_bits(seed, shape)
    shift = (random_bits(seed + 1, (shape[0], 1)) % np.uint64(23)).astype(np.uint32)
    mantissa = (bits & np.uint64(0x7FFFFF)).astype(np.uint32) >> shift
    return (mantissa | ((bits >> np.uint64(63)).astype(np.uint32) << np.uint32(31))).view(np.float32)


def mixed_zeros(seed: int, shape: tuple[int, ...]) -> Floats:
    return np.where(random_bits(seed, shape) & np.uint64(1), np.float32(0), np.float32(-0.0))


def sparse(seed: int, shape: tuple[int, ...]) -> Floats:
    """Zeros of both signs around a few values; whole blocks of zeros among them."""
    keep = random_bits(seed + 1, shape) % np.uint64(24) == 0
    return np.where(keep, gaussian(seed, shape), mixed_zeros(seed, shape)).astype(np.float32)


def zero_and_tiny_blocks(seed: int, shape: tuple[int, ...]) -> Floats:
    x = scaled_blocks(seed, shape, 16, -149, -100).reshape(-1, 16)
    x[::2] = 0
    return x.reshape(shape)


def random_floats(seed: int, shape: tuple[int, ...]) -> Floats:
    """Any finite float32."""
    bits = (random_bits(seed, shape) >> np.uint64(32)).astype(np.uint32)
    x = bits.view(np.float32)
    return np.where(np.isfinite(x), x, (bits & np.uint32(0xBFFFFFFF)).view(np.float32))


def from_f16(seed: int, shape: tuple[int, ...]) -> Floats:
    return (gaussian(seed, shape) * np.float32(2**-5)).astype(np.float16).astype(np.float32)


def from_bf16(seed: int, shape: tuple[int, ...]) -> Floats:
    return (gaussian(seed, shape).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def ramp(seed: int, shape: tuple[int, ...]) -> Floats:
    steps = np.arange(shape[0] * shape[1]).reshape(shape) * (seed % 7 + 1) % 61
    return (steps.astype(np.float32) - 30) * np.float32(2**-3)


def filled(value: float, shape: tuple[int, ...]) -> Floats:
    return np.full(shape, value, np.float32)


CASES = {
    "gaussian": gaussian,
    "heavy": heavy,
    "uniform": uniform,
    "positive": lambda seed, shape: np.abs(heavy(seed, shape)),
    "negative": lambda seed, shape: -np.abs(heavy(seed, shape)),
    "zeros": lambda seed, shape: filled(0.0, shape),
    "negative_zeros": lambda seed, shape: filled(-0.0, shape),
    "mixed_zeros": mixed_zeros,
    "constant": lambda seed, shape: filled(1.7, shape),
    "constant_negative": lambda seed, shape: filled(-0.3, shape),
    "near_constant": near_constant,
    "denormals": denormals,
    "tiny": lambda seed, shape: gaussian(seed, shape) * np.float32(2**-110),
    "below_epsilon": lambda seed, shape: gaussian(seed, shape) * np.float32(2**-50),
    "huge": lambda seed, shape: gaussian(seed, shape) * np.float32(2**125),
    "beyond_f16": lambda seed, shape: gaussian(seed, shape) * np.float32(2**22),
    "below_f16": lambda seed, shape: gaussian(seed, shape) * np.float32(2**-22),
    "half_zeros": lambda seed, shape: gaussian(seed, shape) * np.float32(np.arange(shape[1]) % 2),
    "sparse": sparse,
    "zero_and_tiny_blocks": zero_and_tiny_blocks,
    "outliers": outliers,
    "alternating": lambda seed, shape: filled(0.7, shape) * np.float32(1 - 2 * (np.arange(shape[1]) % 2)),
    "ramp": ramp,
    "ties": ties,
    "equal_extremes": equal_extremes,
    "from_f16": from_f16,
    "from_bf16": from_bf16,
    "scaled_16": lambda seed, shape: scaled_blocks(seed, shape, 16, -12, 12),
    "scaled_32": lambda seed, shape: scaled_blocks(seed, shape, 32, -40, 20),
    "scaled_256": lambda seed, shape: scaled_blocks(seed, shape, 256, -148, 120),
    "random_floats": random_floats,
}


def importance(seed: int, n: int) -> Floats:
    """Mean squares of activations have a tail like this."""
    return heavy(seed, (n,)) ** 2


def huge_ratios(seed: int, n: int) -> Floats:
    exponent = (random_bits(seed, (n,)) % np.uint64(100)).astype(np.int64) - 60
    return power_of_two(exponent)


def with_zeros(seed: int, n: int) -> Floats:
    return np.where(random_bits(seed + 9, (n,)) % np.uint64(3) == 0, np.float32(0), importance(seed, n))


IMPORTANCE = {
    "importance": importance,
    "ones": lambda seed, n: np.ones(n, np.float32),
    "zeros": lambda seed, n: np.zeros(n, np.float32),
    "with_zeros": with_zeros,
    "huge_ratios": huge_ratios,
}


def case(name: str, rows: int, n: int) -> Floats:
    return np.ascontiguousarray(CASES[name](zlib.crc32(name.encode()) >> 1, (rows, n)), np.float32)


def case_importance(name: str, n: int) -> Floats:
    return np.ascontiguousarray(IMPORTANCE[name](zlib.crc32(name.encode()) >> 1, n), np.float32)
