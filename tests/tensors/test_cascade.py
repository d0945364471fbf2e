"""Sums and BitNet's rounding, with the bits of torch 2.13 (one thread)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from gguf_forge.tensors.cascade import cascade_sum
from gguf_forge.tensors.stored import Constant
from gguf_forge.tensors.ternary import Ternary
from gguf_forge.types.tensor_type import F16


def values(count: int) -> np.ndarray:
    """Numbers from 0 to 1 that look like random ones."""
    return ((np.arange(count, dtype=np.uint64) * 2654435761 % (1 << 32)) / (1 << 32)).astype(np.float32)


SUMS = [
    (1, "0x0.0p+0"),
    (7, "0x1.7d467e0000000p+1"),
    (8, "0x1.a708aa0000000p+1"),
    (35, "0x1.0baefe0000000p+4"),
    (500, "0x1.f37ad00000000p+7"),
    (4096, "0x1.0003960000000p+11"),
    (33333, "0x1.04659a0000000p+14"),
    (65536, "0x1.ffff0c0000000p+14"),
    (1000003, "0x1.e848240000000p+18"),
]


@pytest.mark.parametrize(("count", "wanted"), SUMS)
@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_a_sum_has_the_bits_of_torch_however_it_is_cut(count: int, wanted: str, piece: int) -> None:
    every = values(count)
    pieces = [every[start : start + piece] for start in range(0, count, piece)]
    assert float(cascade_sum(pieces, count)[0]).hex() == float.fromhex(wanted).hex()


def test_weights_are_rounded_as_bitnet_does_it() -> None:
    weights = (values(96 * 70) - np.float32(0.5)).reshape(96, 70)
    expr = Ternary(Constant(weights))
    rounded = expr.rows(0, 96)
    wanted = "6d374bb29730134e4f5793a2b3e19f3bb7fc7f1727b58c247292655a055586be"
    assert hashlib.sha256(rounded.tobytes()).hexdigest() == wanted
    np.testing.assert_array_equal(expr.take(np.array([95, 3])), rounded[[95, 3]])


def test_the_mean_is_of_the_whole_tensor_whichever_rows_are_taken_first() -> None:
    weights = np.concatenate((np.full((1, 32), 0.125), np.full((3, 32), 8.0))).astype(np.float32)
    np.testing.assert_array_equal(Ternary(Constant(weights)).rows(0, 1), np.zeros((1, 32), np.float32))


def test_rounded_f16_stays_f16() -> None:
    rows = Ternary(Constant(np.ones((2, 32), np.float16), F16)).rows(0, 2)
    assert rows.dtype == np.float16
    assert (rows == 1).all()
