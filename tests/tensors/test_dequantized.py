"""Dequantized rows beside the formulas written out over whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import InputError
from gguf_forge.tensors.dequantized import Scaled, is_of_fp8
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.row_maps import Transpose
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.element_type import ELEMENT_TYPES


def numbers(array: np.ndarray) -> Constant:
    """An array of any type as an expression."""
    return Constant(array)


def whole(expr: Scaled) -> np.ndarray:
    return expr.rows(0, expr.n_rows)


@given(st.integers(1, 40), st.integers(1, 7), st.sampled_from((1, 2, 3, 16)), st.integers(1, 4))
def test_every_value_has_the_scale_of_its_block(rows: int, columns: int, row_block: int, column_block: int) -> None:
    random = np.random.default_rng(rows * columns)
    codes = random.integers(-9, 9, (2, rows, columns)).astype(np.float32)
    scales = random.random((2, -(-rows // row_block), -(-columns // column_block)), np.float32)
    expr = Scaled(numbers(codes), numbers(scales), row_block, column_block)
    wanted = codes * scales.repeat(row_block, 1).repeat(column_block, 2)[:, :rows, :columns]
    np.testing.assert_array_equal(whole(expr), wanted.reshape(-1, columns))
    some = random.integers(0, 2 * rows, 5)
    np.testing.assert_array_equal(expr.take(some), wanted.reshape(-1, columns)[some])


def test_scales_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"scales of shape \(2, 2\) do not fit: \(2, 1\)"):
        Scaled(numbers(np.zeros((4, 4), np.float32)), numbers(np.zeros((2, 2), np.float32)), 2, 4)


@pytest.mark.parametrize("zeros", [None, 8])
def test_zero_points_are_subtracted_before_and_biases_added_after(zeros: int | None) -> None:
    random = np.random.default_rng(1)
    codes = random.integers(0, 16, (4, 6)).astype(np.uint8)
    scales, points, shifts = random.random((3, 2, 3), np.float32)
    expr = Scaled(numbers(codes), numbers(scales), 2, 2, zeros or numbers(points), numbers(shifts))
    wide = [each.repeat(2, 0).repeat(2, 1) for each in (scales, points, shifts)]
    wanted = (codes.astype(np.float32) - np.float32(zeros or wide[1])) * wide[0] + wide[2]
    np.testing.assert_array_equal(whole(expr), wanted)
    np.testing.assert_array_equal(expr.take(np.array([3, 0])), wanted[[3, 0]])


@pytest.mark.parametrize("what", ["zero points", "biases"])
def test_numbers_of_another_shape_than_the_scales_are_refused(what: str) -> None:
    codes, scales, odd = (numbers(np.zeros(shape, np.float32)) for shape in ((4, 4), (4, 1), (4, 2)))
    with pytest.raises(InputError, match=rf"{what} of shape \(4, 2\) do not fit: \(4, 1\)"):
        Scaled(codes, scales, 1, 4, odd if what == "zero points" else 0, odd if what == "biases" else None)


def test_what_was_fp8_is_told_by_its_codes_and_of_stacks_by_the_last() -> None:
    def scaled(name: str) -> Scaled:
        codes = Constant(np.zeros((2, 4), ELEMENT_TYPES[name].dtype), ELEMENT_TYPES[name])
        return Scaled(codes, numbers(np.ones((2, 1), np.float32)), 1, 4)

    fp8, int8 = scaled("F8_E5M2"), scaled("I8")
    assert is_of_fp8(fp8)
    assert not is_of_fp8(int8)
    assert is_of_fp8(Transpose(Stack((int8, fp8))))
    assert not is_of_fp8(Stack((fp8, int8)))


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_scales_that_are_no_numbers_are_refused(scale: float) -> None:
    expr = Scaled(numbers(np.ones((2, 4), np.float32)), numbers(np.array([[1], [scale]], np.float32)), 1, 4)
    np.testing.assert_array_equal(expr.rows(0, 1), np.ones((1, 4), np.float32))
    with pytest.raises(InputError, match="a scale or zero point is infinite or not a number"):
        whole(expr)


def test_a_zero_scale_is_refused_where_it_is_of_the_whole_tensor() -> None:
    ones = numbers(np.ones((2, 4), np.float32))
    assert not whole(Scaled(ones, numbers(np.zeros((2, 1), np.float32)), 1, 4)).any()
    with pytest.raises(InputError, match="the scale of the whole tensor is zero"):
        whole(Scaled(ones, numbers(np.zeros((1, 1), np.float32)), 2, 4))
