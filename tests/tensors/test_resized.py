"""Grids of another size, against torch's interpolation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gguf_forge.errors import InputError
from gguf_forge.tensors.resized import Resized, fused
from gguf_forge.tensors.stored import Constant


def grid(side: int, columns: int) -> Constant:
    values = np.arange(side * side * columns, dtype=np.float32) % 251 / np.float32(7)
    return Constant(values.reshape(1, side * side, columns))


def test_the_corners_stay_and_the_rest_lies_between() -> None:
    square = Constant(np.float32([[[0, 1], [2, 3], [4, 5], [6, 7]]]))
    resized = Resized(square, 3)
    assert resized.shape == (1, 9, 2)
    assert resized.rows(0, 9)[:, 0].tolist() == [0, 1, 2, 2, 3, 4, 4, 5, 6]


def test_rows_come_in_any_order() -> None:
    resized = Resized(grid(9, 16), 5)
    whole = resized.rows(0, 25)
    order = np.random.default_rng(1).permutation(25)
    assert np.array_equal(resized.take(order), whole[order])
    assert np.array_equal(Resized(grid(9, 16), 1).rows(0, 1), grid(9, 16).rows(0, 1))


def test_a_fused_step_rounds_once() -> None:
    random = np.random.default_rng(2)
    a, b, c = (random.normal(size=4000).astype(np.float32) for _ in range(3))
    c = np.where(random.random(4000) < 0.5, -a * b, c).astype(np.float32)  # sums that cancel
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
    found = fused(a, b, c)
    for value, want in zip(found, exact, strict=True):
        around = (np.nextafter(value, np.float32(-np.inf)), np.nextafter(value, np.float32(np.inf)))
        assert all(abs(Fraction(float(value)) - want) <= abs(Fraction(float(other)) - want) for other in around)


@pytest.mark.parametrize("shape", [(1, 8, 4), (9,)])
def test_what_is_no_square_grid_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="is not a square grid of vectors"):
        Resized(Constant(np.zeros(shape, np.float32)), 2)
