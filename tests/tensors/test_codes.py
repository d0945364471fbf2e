"""Codes out of their packings, beside the same codes before they were packed."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge.errors import InputError
from gguf_forge.tensors import expression
from gguf_forge.tensors.codes import ColumnCodes, Gathered, Lookup, RowCodes, RowPlanes
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import Transpose
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.element_type import ELEMENT_TYPES


def numbers(array: np.ndarray, name: str = "I32") -> Constant:
    """Stored numbers as an expression."""
    return Constant(array, ELEMENT_TYPES[name])


def whole(expr: TensorExpr) -> np.ndarray:
    return expr.rows(0, expr.n_rows)


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (n, count) as bit streams of int32 words (n, ceil(count * bits / 32))."""
    flat = ((codes[:, :, None] >> np.arange(bits)) & 1).reshape(len(codes), -1)
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 32)))
    words = flat.reshape(len(codes), -1, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)
    return words.sum(2).astype(np.uint32).view(np.int32)


def codes_of(bits: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 1 << bits, shape)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("width", [64, 61])
def test_codes_along_rows_are_what_was_packed(bits: int, width: int) -> None:
    codes = codes_of(bits, (5, width))
    expr = RowCodes(numbers(packed(codes, bits)), bits, width)
    np.testing.assert_array_equal(whole(expr), codes)
    np.testing.assert_array_equal(expr.take(np.array([4, 1])), codes[[4, 1]])


def test_codes_may_lie_in_another_order() -> None:
    codes = codes_of(4, (3, 32))
    order = (0, 4, 1, 5, 2, 6, 3, 7)
    expr = RowCodes(numbers(packed(codes, 4)), 4, 32, order)
    np.testing.assert_array_equal(whole(expr), codes.reshape(3, 4, 8)[:, :, list(order)].reshape(3, 32))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("height", [64, 61])
def test_codes_along_columns_are_what_was_packed(bits: int, height: int) -> None:
    codes = codes_of(bits, (height, 7))
    expr = ColumnCodes(numbers(packed(codes.T, bits).T.copy()), bits, height)
    np.testing.assert_array_equal(whole(expr), codes)
    some = np.array([height - 1, 0, 11, 10])
    np.testing.assert_array_equal(expr.take(some), codes[some])


COLUMNS = ([0, 1, 2, 3], [40, 41, 42], [7, 6, 33, 0], list(range(61)))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("passes", [1 << 21, 1 << 10])
def test_columns_of_codes_are_taken(
    monkeypatch: pytest.MonkeyPatch, bits: int, columns: list[int], passes: int
) -> None:
    monkeypatch.setattr(expression, "_PASS_BYTES", passes)
    codes = codes_of(bits, (2, 70, 61))
    along_rows = numbers(packed(codes.reshape(140, 61), bits).reshape(2, 70, -1))
    found = Transpose(RowCodes(along_rows, bits, 61)).take(np.array(columns) + 61)
    np.testing.assert_array_equal(found, codes[1].T[columns])
    along_columns = numbers(packed(codes[0].T, bits).T.copy())
    found = Transpose(ColumnCodes(along_columns, bits, 70)).take(np.array(columns))
    np.testing.assert_array_equal(found, codes[0].T[columns])


@pytest.mark.parametrize(
    ("bits", "order", "name"), [(2, (0, 1, 2, 3), "U8"), (4, (1, 0), "U8"), (3, tuple(range(9, -1, -1)), "I32")]
)
def test_codes_in_planes_are_what_was_packed(bits: int, order: tuple[int, ...], name: str) -> None:
    codes = codes_of(bits, (3 * len(order), 5))
    stored = sum(plane << bits * at for plane, at in zip(codes.reshape(-1, 3, 5), order, strict=True))
    expr = RowPlanes(numbers(stored.astype(ELEMENT_TYPES[name].dtype), name), bits, order)
    np.testing.assert_array_equal(whole(expr), codes)
    some = np.array([5, 0, 3, 3])
    np.testing.assert_array_equal(expr.take(some), codes[some])


@pytest.mark.parametrize(
    "make",
    [
        lambda: RowCodes(numbers(np.zeros((4, 4), np.int32)), 4, 33),
        lambda: RowCodes(numbers(np.zeros((4, 4), np.int32)), 4, 24),
        lambda: ColumnCodes(numbers(np.zeros((4, 4), np.int32)), 4, 33),
        lambda: RowPlanes(numbers(np.zeros(4, np.uint8), "U8"), 2, (0, 1, 2, 3)),
        lambda: Gathered(numbers(np.zeros((4, 4))), numbers(np.zeros((4, 4), np.int32))),
    ],
)
def test_packings_of_another_shape_are_refused(make: object) -> None:
    with pytest.raises(InputError):
        make()  # type: ignore[operator]


def test_codes_are_looked_up() -> None:
    levels = np.array([0.5, -1.0, 3.0], np.float32)
    codes = np.array([[0, 2], [1, 1]], np.uint8)
    np.testing.assert_array_equal(whole(Lookup(numbers(codes, "U8"), Constant(levels))), levels[codes])
    with pytest.raises(InputError, match="a code is 3, and its table has 3 values"):
        whole(Lookup(numbers(np.array([[3]], np.uint8), "U8"), Constant(levels)))


def test_groups_are_gathered_by_an_index() -> None:
    of, index = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([2, 0, 1, 1, 2], np.int32)
    expr = Gathered(Constant(of), numbers(index))
    np.testing.assert_array_equal(whole(expr), of[:, index])
    np.testing.assert_array_equal(expr.take(np.array([2, 0])), of[[2, 0]][:, index])


@pytest.mark.parametrize("group", [-1, 4])
def test_groups_that_are_not_there(group: int) -> None:
    expr = Gathered(Constant(np.zeros((3, 4), np.float32)), numbers(np.array([0, group, 3], np.int32)))
    with pytest.raises(InputError, match=f"g_idx names group {group}, and there are 4"):
        whole(expr)
