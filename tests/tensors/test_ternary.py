"""Weights made of ternary ones: BitNet rounds them to the same."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge.tensors.stored import Constant
from gguf_forge.tensors.ternary import Ternary, Unrounded


def ternary(n_rows: int, seed: int) -> np.ndarray:
    weights = np.random.default_rng(seed).standard_normal((n_rows, 96)).astype(np.float32) * np.float32(0.02)
    return Ternary(Constant(weights)).rows(0, n_rows)


@pytest.mark.parametrize(("n_rows", "seed"), [(1, 1), (7, 2), (96, 3), (300, 4)])
def test_unrounded_weights_are_rounded_to_the_same(n_rows: int, seed: int) -> None:
    rounded = ternary(n_rows, seed)
    found = Unrounded(Constant(rounded)).rows(0, n_rows)
    assert (np.sign(found) == np.sign(rounded)).all()
    np.testing.assert_array_equal(Ternary(Constant(found)).rows(0, n_rows), rounded)


def test_rows_do_not_depend_on_those_before_them() -> None:
    expr = Unrounded(Constant(ternary(50, 5)))
    whole = Unrounded(Constant(ternary(50, 5))).rows(0, 50)
    np.testing.assert_array_equal(expr.take(np.array([49, 0, 7])), whole[[49, 0, 7]])


@pytest.mark.parametrize("values", [[0.0, 0.5, -0.25, 0.0], [0.0] * 4, [np.inf, 0.0, -np.inf, 0.0], [np.nan] * 4])
def test_other_values_stay(values: list[float]) -> None:
    weights = np.array([values, values], np.float32)
    np.testing.assert_array_equal(Unrounded(Constant(weights)).rows(0, 2), weights)
