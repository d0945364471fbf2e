"""The logarithm of 1 + e^x, and x / (1 + e^-x), with the bits of torch on x86-64 CPUs.

torch computes them with two functions of the vector library SLEEF, expf and log1pf in their versions of 1.0 ulp. What
follows has their steps: a power of two and a polynomial for the exponential, and for the logarithm a quotient, a
polynomial and sums that keep what rounding takes away. All bfloat16 values and four million floats from -20 to 20 have
torch's bits. What is left of a tensor after groups of 32 values torch leaves to the C library, whose bits are not
followed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Above the first the logarithm is the value itself, below the second the exponential is zero.
_LINEAR_ABOVE, _ZERO_BELOW = 20, -104
_F = np.float32
_LOG2_E, _LN2_HIGH, _LN2_LOW = _F(1.4426950408889634), _F(0.693145751953125), _F(1.428606765330187e-06)
# Of x^7, x^6, ... and x^2 in the exponential: about 1/n!.
_EXPONENTIAL = (1.98527618e-04, 1.39304355e-03, 8.33336078e-03, 4.16664854e-02, 1.66666672e-01, 0.5)
# Of z^3, z^2 and z in the logarithm, where z is the square of m / (2 + m): about 2/7, 2/5, 2/3.
_LOGARITHM = (0.3027294874, 0.3996108174, 0.6666694880)
_LN2, _LN2_REST = _F(0.6931471824645996), _F(-1.904654323148236e-09)


def softplus(x: Floats) -> Floats:
    """log(1 + e^x) of each value; the value itself where it is above 20.

    Example:
        >>> softplus(np.array([0.0, 30.0], np.float32)).tolist()
        [0.6931471824645996, 30.0]
    """
    return np.where(x > _LINEAR_ABOVE, x, _log1p(_exp(np.minimum(x, _LINEAR_ABOVE))))


def silu(x: Floats) -> Floats:
    """x / (1 + e^-x) of each value, also with torch's bits.

    Example:
        >>> silu(np.array([0.0, 1.0, -200.0], np.float32)).tolist()
        [0.0, 0.7310585975646973, -0.0]
    """
    with np.errstate(over="ignore"):
        quotient: Floats = x / (_F(1) + _exp(-x))
    return quotient


def _fma(a: Floats | np.float32, b: Floats | np.float32, c: Floats | np.float32) -> Floats:
    """a * b + c, rounded once; the product of two floats is exact in float64."""
    wide = np.asarray(a, np.float64) * np.asarray(b, np.float64) + np.asarray(c, np.float64)
    return wide.astype(np.float32)


def _exp(x: Floats) -> Floats:
    """e to the power of each value, in 1.0 ulp. It is zero below a bound, and infinite above another."""
    return np.where(x < _ZERO_BELOW, _F(0), _exp_within(np.clip(x, _ZERO_BELOW, -_ZERO_BELOW)))


def _exp_within(x: Floats) -> Floats:
    power = np.rint(x * _LOG2_E)
    rest = _fma(power, -_LN2_LOW, _fma(power, -_LN2_HIGH, x))
    p = np.full_like(rest, _EXPONENTIAL[0])
    for coefficient in _EXPONENTIAL[1:]:
        p = _fma(p, rest, _F(coefficient))
    value: Floats = np.ldexp(1 + _fma(rest * rest, p, rest), power.astype(np.int32))
    return value


def _log1p(x: Floats) -> Floats:
    power = np.frexp((x + _F(1)) * _F(4 / 3))[1] - 1
    scale = np.ldexp(_F(1), -power)
    m = _fma(x, scale, scale - _F(1))
    # s = m / (2 + m), and what its rounding takes away
    below = _F(2) + m
    below_rest = (_F(2) - below) + m
    reciprocal = _F(1) / below
    s = m * reciprocal
    error = _fma(-reciprocal, below_rest, _fma(-reciprocal, below, np.ones_like(below)))
    s_rest = _fma(s, error, _fma(m, reciprocal, -s))
    z = s * s
    p = np.full_like(z, _LOGARITHM[0])
    for coefficient in _LOGARITHM[1:]:
        p = _fma(p, z, _F(coefficient))
    # power * ln 2 + 2 s + s^3 p, each sum with its rest
    n = power.astype(np.float32)
    high = _LN2 * n
    high, low = _sum(high, _fma(_LN2_REST, n, _fma(_LN2, n, -high)), s * 2, s_rest * 2)
    last = (z * s) * p
    total = high + last
    value: Floats = total + (((high - total) + last) + low)
    return value


def _sum(a: Floats, a_rest: Floats, b: Floats, b_rest: Floats) -> tuple[Floats, Floats]:
    total = a + b
    return total, (((a - total) + b) + a_rest) + b_rest
