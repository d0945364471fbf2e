"""Dequantized rows beside the formulas written out over whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import InputError
from gguf_forge.tensors.dequantized import GptqColumns, Scaled, bit_fields
from gguf_forge.tensors.stored import Constant


def numbers(array: np.ndarray) -> Constant:
    """An array of any type as an expression."""
    return Constant(array)


def whole(expr: Scaled | GptqColumns) -> np.ndarray:
    return expr.rows(0, expr.n_rows)


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 3), st.integers(1, 4))
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


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (n, count) as bit streams of int32 words (n, count * bits / 32)."""
    flat = (codes[:, :, None] >> np.arange(bits)) & 1
    words = flat.reshape(len(codes), -1, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)
    return words.sum(2).astype(np.uint32).view(np.int32)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_bit_fields_are_what_was_packed(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (3, 64))
    assert (bit_fields(packed(codes, bits).view(np.uint32), bits, np.arange(64) * bits) == codes).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("offset", [0, 1])
def test_gptq_is_its_formula(bits: int, named: bool, offset: int) -> None:
    random = np.random.default_rng(bits)
    codes, zeros = random.integers(0, 1 << bits, (64, 32)), random.integers(0, 1 << bits, (4, 32))
    zeros[0, 0] = (1 << bits) - 1  # the greatest plus one does not wrap
    scales = random.random((4, 32), np.float32).astype(np.float16)
    groups = random.permutation(np.repeat(np.arange(4, dtype=np.int32), 16)) if named else None
    expr = GptqColumns(
        numbers(packed(codes.T, bits).T.copy()),
        numbers(packed(zeros, bits)),
        numbers(scales),
        numbers(groups) if groups is not None else None,
        bits,
        offset,
    )
    of = groups if groups is not None else np.repeat(np.arange(4), 16)
    wanted = scales[of].astype(np.float32) * (codes - (zeros[of] + offset)).astype(np.float32)
    np.testing.assert_array_equal(whole(expr), wanted)
    some = random.integers(0, 64, 9)
    np.testing.assert_array_equal(expr.take(some), wanted[some])


@pytest.mark.parametrize("group", [-1, 4])
def test_groups_that_are_not_there(group: int) -> None:
    parts = [np.zeros(shape, np.int32) for shape in ((4, 32), (4, 4))]
    expr = GptqColumns(
        numbers(parts[0]), numbers(parts[1]), numbers(np.ones((4, 32))), numbers(np.full(32, group, np.int32)), 4, 1
    )
    with pytest.raises(InputError, match="g_idx names group"):
        whole(expr)
