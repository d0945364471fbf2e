"""Every expression against the same thing done by NumPy on whole arrays; rows in any order, bytes accounted for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from gguf import quants
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.arithmetic import Add, Divide, FoldedNorm, Multiply, NegExp, Product, Sum
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import Stack, concat
from gguf_forge.tensors.packed import RepackMxfp4
from gguf_forge.tensors.row_maps import Reorder, Repeat, Reshape, Slice, Transpose, permute_rope, reshaped, squeezed
from gguf_forge.tensors.stored import AsI32, Constant, Stored, StoredElements, Zeros
from gguf_forge.types.element_type import ELEMENT_TYPES
from gguf_forge.types.tensor_type import BF16, F16, F32, TENSOR_TYPES


class MemorySource:
    """A source over bytes that remembers what was read."""

    def __init__(self, data: bytes):
        self.path, self.size = Path("memory"), len(data)
        self._data = np.frombuffer(data, np.uint8)
        self.read_ranges: list[tuple[int, int]] = []

    def view(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        return self._data[offset : offset + nbytes]

    def read(self, offset: int, nbytes: int, *, at: int = 0) -> NDArray[np.uint8]:
        self.read_ranges.append((offset, nbytes))
        return self.view(offset, nbytes).copy()

    def check_unchanged(self) -> None:
        pass


_ELEMENTS = {np.dtype(np.uint8): "U8", np.dtype(np.int8): "I8", np.dtype(np.int64): "I64"}
_KINDS = {np.dtype(np.float32): F32, np.dtype(np.float16): F16}


def stored(values: NDArray[np.generic], offset: int = 0) -> Stored:
    source = MemorySource(b"\xee" * offset + values.tobytes())
    if values.dtype in _ELEMENTS:
        return StoredElements("t", source, offset, values.shape, ELEMENT_TYPES[_ELEMENTS[values.dtype]])
    return Stored("t", source, offset, values.shape, _KINDS[values.dtype])


def numbered(*shape: int) -> NDArray[np.float32]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def check(expr: TensorExpr, wanted: NDArray[np.generic]) -> None:
    """The whole, single rows, and rows backwards are those of `wanted`."""
    assert expr.shape == wanted.shape
    matrix = wanted.reshape(-1, wanted.shape[-1])
    assert expr.n_rows == len(matrix)
    np.testing.assert_array_equal(expr.rows(0, len(matrix)), matrix)
    for row in range(len(matrix)):
        np.testing.assert_array_equal(expr.rows(row, row + 1), matrix[row : row + 1])
    backwards = np.arange(len(matrix))[::-1]
    np.testing.assert_array_equal(expr.take(backwards), matrix[::-1])


def test_stored_reads_what_is_there_at_any_offset() -> None:
    for offset in (0, 1, 7, 64):
        check(stored(numbered(5, 3), offset), numbered(5, 3))
    check(stored(numbered(7)), numbered(7)[None].reshape(7))


def test_bfloat16_comes_as_bfloat16() -> None:
    bits = np.array([[0x3F80, 0xC000]], np.uint16)
    expr = Stored("t", MemorySource(bits.tobytes()), 0, (1, 2), BF16)
    assert expr.rows(0, 1).astype(np.float32).tolist() == [[1.0, -2.0]]


def test_permute_rope_is_the_reference_formula() -> None:
    for heads, size, columns in ((1, 2, 3), (2, 4, 5), (3, 8, 2)):
        x = numbered(heads * size, columns)
        wanted = x.reshape(heads, 2, size // 2, columns).swapaxes(1, 2).reshape(x.shape)
        check(permute_rope(stored(x), heads), wanted)
        bias = x[:, 0].copy()
        wanted = bias.reshape(heads, 2, size // 2).swapaxes(1, 2).reshape(-1)
        assert permute_rope(stored(bias), heads).rows(0, 1).tolist() == [wanted.tolist()]


def test_permute_rope_refuses_odd_heads() -> None:
    with pytest.raises(InputError, match="heads of an even size"):
        permute_rope(stored(numbered(6, 2)), 2)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.data())
def test_slices_of_rows_and_columns(experts: int, rows: int, columns: int, data: st.DataObject) -> None:
    x = numbered(experts, rows, columns)
    for axis, length in ((-1, columns), (-2, rows)):
        start = data.draw(st.integers(0, length - 1))
        stop = data.draw(st.integers(start + 1, length))
        step = data.draw(st.integers(1, 3))
        part = [slice(None)] * 3
        part[axis] = slice(start, stop, step)
        check(Slice(stored(x), axis, start, stop, step), x[tuple(part)])


def test_slice_beyond_the_end_is_refused() -> None:
    with pytest.raises(InputError, match="has no part"):
        Slice(stored(numbered(4, 2)), -2, 2, 6)


def test_transpose_of_each_matrix() -> None:
    x = numbered(3, 4, 5)
    check(Transpose(stored(x)), x.swapaxes(1, 2))
    check(Slice(Transpose(stored(x)), -2, 1, 5, 2), x.swapaxes(1, 2)[:, 1::2])


def test_reshape_and_merge() -> None:
    x = numbered(6, 4)
    check(Reshape(stored(x), (2, 3, 4)), x.reshape(2, 3, 4))
    for to in ((2, 12), (24,), (12, 2), (3, 4, 2), (1, 24), (24, 1)):
        check(Reshape(stored(x), to), x.reshape(to))
    check(reshaped(stored(x), (4, 6)), x.reshape(4, 6))
    check(reshaped(stored(numbered(3, 1, 4, 1)), (3, 4)), numbered(3, 4))
    check(squeezed(stored(numbered(3, 1, 4))), numbered(3, 4))
    for to in ((4,), (), (0, 4), (4, 6)):
        with pytest.raises(InputError, match="cannot be seen as"):
            Reshape(stored(x), to)


@given(st.permutations(range(3)), st.tuples(*[st.integers(1, 4)] * 3), st.sampled_from((-1, -2, -3)))
def test_reordering_and_back(order: list[int], parts: tuple[int, ...], axis: int) -> None:
    shape = [2, 3, 2]
    shape[axis] = math.prod(parts)
    x = numbered(*shape)
    seen = (*shape[: 3 + axis], *parts, *shape[4 + axis :])
    axes = [*range(3 + axis), *(3 + axis + part for part in order), *range(6 + axis, 5)]
    expr = Reorder(stored(x), axis, parts, tuple(order))
    check(expr, x.reshape(seen).transpose(axes).reshape(x.shape))
    check(expr.inverse(expr), x)


def test_columns_of_blocks_move_as_whole_blocks() -> None:
    blocks = np.arange(3 * 8 * 34, dtype=np.uint32).astype(np.uint8).reshape(3, 8, 34)
    packed = Stored("t", MemorySource(blocks.tobytes()), 0, (3, 256), TENSOR_TYPES["Q8_0"])
    moved = Reorder(packed, -1, (2, 2, 64), (1, 0, 2))
    np.testing.assert_array_equal(moved.rows(0, 3).reshape(3, 8, 34), blocks[:, [0, 1, 4, 5, 2, 3, 6, 7]])
    np.testing.assert_array_equal(moved.inverse(moved).rows(0, 3), packed.rows(0, 3))
    with pytest.raises(UnsupportedError, match="Q8_0 blocks move 16 at a time"):
        Reorder(packed, -1, (4, 4, 16), (1, 0, 2))


@given(st.integers(1, 3), st.sampled_from((-1, -2, -3)))
def test_repeating_and_back(times: int, axis: int) -> None:
    x = numbered(2, 3, 2)
    expr = Repeat(stored(x), axis, times)
    check(expr, x.repeat(times, axis))
    check(expr.inverse(expr), x)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.sampled_from((-1, -2, -3)))
def test_joining_along_an_axis(sizes: list[int], axis: int) -> None:
    parts = []
    for number, size in enumerate(sizes):
        shape = [2, 3, 2]
        shape[axis] = size
        parts.append(numbered(*shape) + 100 * number)
    check(concat(tuple(map(stored, parts)), axis), np.concatenate(parts, axis))


def test_parts_of_different_types_become_float32() -> None:
    """As torch promotes them: merge tools leave one expert in F32 and the others in BF16 or F16."""
    half, single = numbered(3, 2).astype(np.float16), numbered(3, 2) / 3
    for joined in (Stack((stored(half), stored(single))), concat((stored(half), stored(single)))):
        assert joined.dtype == F32
        rows = joined.rows(0, 6)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, np.concatenate([half.astype(np.float32), single]))
        assert joined.stored_runs(0, 6) is None
    bits = np.array([[0x3F80, 0xC000]], np.uint16)
    brain = Stored("t", MemorySource(bits.tobytes()), 0, (1, 2), BF16)
    assert Stack((brain, brain)).dtype == BF16
    assert Stack((brain, stored(numbered(1, 2).astype(np.float16)))).dtype == F32


def test_multiplying_and_dividing_round_once() -> None:
    half = np.array([1.0, 3.0, -7.0], np.float16)
    third = (half.astype(np.float32) * np.float32(1 / 3)).astype(np.float16)
    assert Multiply(stored(half), 1 / 3).rows(0, 1).tolist() == [third.tolist()]
    assert Divide(stored(half.astype(np.float32)), 3.0).rows(0, 1).tolist() == [
        (half.astype(np.float32) / np.float32(3)).tolist()
    ]


def test_neg_exp_rounds_once_and_comes_back() -> None:
    logarithms = np.array([-1.5, 0.0, 2.25], np.float32)
    powers = NegExp(stored(logarithms))
    assert powers.rows(0, 1).tolist() == [(-np.exp(logarithms.astype(np.float64))).astype(np.float32).tolist()]
    np.testing.assert_allclose(powers.inverse(powers).rows(0, 1), [logarithms], rtol=1e-6, atol=1e-7)


def test_stack_and_constant() -> None:
    parts = [numbered(3, 2) + 10 * n for n in range(4)]
    check(Stack(tuple(stored(part) for part in parts)), np.stack(parts))
    check(Constant(numbered(3)), numbered(3))


def test_zeros() -> None:
    check(Zeros((2, 3), F32), np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="differ"):
        Stack((stored(numbered(3, 2)), stored(numbered(2, 3))))


def test_add_stays_in_float16_and_widens_all_else() -> None:
    # 1 + 2^-12 is not a float16 number: computed in float32 and rounded at the end it would be kept until then
    half = np.array([2.0**-12, 1.0, -1.0], np.float16)
    assert Add(stored(half), 1.0).rows(0, 1).dtype == np.float16
    assert Add(stored(half), 1.0).rows(0, 1).tolist() == [[1.0, 2.0, 0.0]]
    single = half.astype(np.float32)
    assert Add(stored(single), 1.0).rows(0, 1).tolist() == [[1.0 + 2.0**-12, 2.0, 0.0]]


def test_a_sum_is_computed_in_float32_and_stays_in_float16_where_all_parts_are() -> None:
    half = np.array([2.0**-12, 1.0, -1.0], np.float16)
    total = Sum((stored(half), stored(half), stored(half)))
    assert total.rows(0, 1).dtype == np.float16
    assert total.rows(0, 1).tolist() == [[3 * 2.0**-12, 3.0, -3.0]]
    mixed = Sum((stored(half), stored(np.array([1.0, 1.0, 1.0], np.float32))))
    assert mixed.rows(0, 1).dtype == np.float32
    assert mixed.rows(0, 1).tolist() == [[1.0 + 2.0**-12, 2.0, 0.0]]
    with pytest.raises(InputError, match="do not go together"):
        Sum((stored(half), stored(half[:2])))


def test_a_product_is_float32_whatever_its_parts_are() -> None:
    half = np.array([1 + 2.0**-10, 3.0, -1.0], np.float16)
    product = Product((stored(half), stored(half)))
    assert product.rows(0, 1).dtype == np.float32
    assert product.rows(0, 1).tolist() == [[(1 + 2.0**-10) ** 2, 9.0, 1.0]]


def test_a_folded_norm_scales_and_shifts_as_the_norm_does() -> None:
    weight, bias, mean, variance = (np.array(v, np.float32) for v in ([2.0, 3.0], [1.0, -1.0], [0.5, 4.0], [4.0, 9.0]))
    parts = [stored(values) for values in (weight, bias, mean, variance)]
    scale = FoldedNorm(*parts).rows(0, 1)
    assert scale.tolist() == [(weight / np.sqrt(variance + np.float32(1e-5))).tolist()]
    assert FoldedNorm(*parts, gives="bias").rows(0, 1).tolist() == (bias - mean * scale).tolist()
    with pytest.raises(InputError, match="not vectors of one length"):
        FoldedNorm(parts[0], parts[1], parts[2], stored(weight[:1]))


def test_repacked_mxfp4_has_the_same_values() -> None:
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, 256, (2, 3, 4, 16), np.uint8)
    scales = rng.integers(100, 140, (2, 3, 4), np.uint8)
    expr = RepackMxfp4(Reshape(stored(blocks), (2, 3, 64)), stored(scales))
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    values = np.concatenate([values, -values])
    nibbles = np.stack([blocks & 15, blocks >> 4], -1).reshape(2, 3, 4, 32)
    wanted = values[nibbles] * np.exp2(scales.astype(np.float32) - 127)[..., None]
    assert expr.shape == (2, 3, 128)
    got = quants.MXFP4.dequantize_blocks(expr.rows(0, 6).reshape(-1, 17)).reshape(wanted.shape)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(expr.rows(4, 5), expr.rows(0, 6)[4:5])
    signed = RepackMxfp4(Reshape(stored(blocks.view(np.int8)), (2, 3, 64)), stored(scales))
    np.testing.assert_array_equal(signed.rows(0, 6), expr.rows(0, 6))
    with pytest.raises(InputError, match="do not fit scales"):
        RepackMxfp4(Reshape(stored(blocks), (2, 3, 64)), stored(scales[:, :2]))


def test_tables_of_integers_become_i32() -> None:
    table = np.array([[1, -2], [2**31 - 1, -(2**31)]], np.int64)
    np.testing.assert_array_equal(AsI32(stored(table)).rows(0, 2).view(np.int32), table)
    with pytest.raises(InputError, match="32 bits do not hold"):
        AsI32(stored(table + 1)).rows(0, 2)
    with pytest.raises(InputError, match="not of integers"):
        AsI32(stored(numbered(2, 2)))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12))
def test_scattered_rows_read_little_that_is_not_asked_for(rows: list[int]) -> None:
    x = numbered(21, 3)
    expr = stored(x, offset=5)
    np.testing.assert_array_equal(expr.take(np.array(rows)), x[rows])
    assert sum(nbytes for _, nbytes in expr.source.read_ranges) <= 4 * 12 * len(rows)
    assert list(expr.sources()) == [expr.source]
