"""Rows through a small network: exact sums, whatever the order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gguf_forge.errors import InputError
from gguf_forge.tensors.network import ThroughNetwork, in_two, product
from gguf_forge.tensors.stored import Constant

RNG = np.random.default_rng(5)


def values(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * np.exp2(RNG.integers(-6, 3, shape))).astype(np.float32)


def test_two_numbers_have_the_value_and_few_bits() -> None:
    x = values(6, 300)
    high, low = in_two(x)
    units = np.exp2(np.ceil(np.log2(np.abs(x).max(axis=1, keepdims=True))) - 20)
    assert (np.abs(high + low - x) <= units * 2.0**-22).all()
    for part, unit in ((high, units), (low, units * 2.0**-21)):
        assert np.array_equal(np.rint(part / unit), part / unit)
        assert np.abs(part / unit).max() <= 1 << 20


def test_the_order_of_a_sum_changes_no_bit() -> None:
    x, matrix = values(8, 3000), values(5, 3000)
    orders = (np.arange(3000), np.arange(3000)[::-1], RNG.permutation(2048))
    first, *others = (product(x[:, order], in_two(matrix[:, order])) for order in orders[:2])
    assert np.allclose(others[0], first, rtol=1e-6)
    small, shuffled = (product(x[:, order], in_two(matrix[:, order])) for order in (np.arange(2048), orders[2]))
    assert np.array_equal(small, shuffled)


def test_a_product_is_the_sum_rounded_once() -> None:
    x, matrix = values(4, 700), values(3, 700)
    found = product(x, in_two(matrix))
    for i, row in enumerate(x):
        for j, column in enumerate(matrix):
            exact = sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, column, strict=True)), Fraction())
            assert found[i, j] == np.float32(float(exact))


def test_zeros_and_what_is_no_number() -> None:
    x = np.zeros((2, 4), np.float32)
    assert not product(x, in_two(np.ones((3, 4), np.float32))).any()
    x[1, 2] = np.inf
    with np.errstate(all="ignore"):
        assert not np.isfinite(product(x, in_two(np.ones((3, 4), np.float32)))[1]).any()


def test_layers_that_do_not_fit() -> None:
    of, first, second = (Constant(values(*shape)) for shape in ((9, 8), (6, 8), (5, 7)))
    with pytest.raises(InputError, match="do not fit the layers"):
        ThroughNetwork(of, first, Constant(values(6)), second, Constant(values(5)), "silu")
