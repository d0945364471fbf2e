"""The row verbs: shapes, threads and refusals. The bytes themselves are tested under kernels/."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.kernels.rows import dequantize, quantize


def values(*shape: int) -> np.ndarray:
    return (np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape) % 97 - 48) / 16


def test_last_axis_is_the_row():
    x = values(2, 3, 512)
    packed = quantize(x, "Q4_K")
    assert packed.shape == (2, 3, 288) and packed.dtype == np.uint8
    assert np.array_equal(packed[1, 2], quantize(x[1, 2], "q4_k"))
    back = dequantize(packed, "Q4_K")
    assert back.shape == x.shape and back.dtype == np.float32
    assert np.abs(back - x).max() < 0.5


def test_rows_need_not_be_contiguous():
    x = values(512, 6).T
    assert np.array_equal(quantize(x, "Q8_0"), quantize(np.ascontiguousarray(x), "Q8_0"))
    packed = quantize(x, "Q8_0")
    assert np.array_equal(dequantize(packed[::2], "Q8_0"), dequantize(packed, "Q8_0")[::2])


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q6_K"])
@pytest.mark.parametrize("threads", [2, 3, 16])
def test_threads_change_nothing(kind, threads):
    x, importance = values(7, 512), np.linspace(0, 3, 512)
    packed = quantize(x, kind, importance=importance, threads=threads)
    assert np.array_equal(packed, quantize(x, kind, importance=importance))
    assert np.array_equal(dequantize(packed, kind, threads=threads), dequantize(packed, kind))


def test_empty_arrays():
    assert quantize(np.empty((0, 256), np.float32), "Q4_K", threads=4).shape == (0, 144)
    assert dequantize(np.empty((3, 0), np.uint8), "Q4_K").shape == (3, 0)


def test_importance_changes_the_bytes():
    x = np.sin(values(1, 256) * 7)
    steep = np.where(np.arange(256) % 2, 1000.0, 0.001)
    assert not np.array_equal(quantize(x, "Q4_K", importance=steep), quantize(x, "Q4_K"))


@pytest.mark.parametrize(
    ("problem", "call"),
    [
        ("unknown tensor type 'Q9_Z'", lambda: quantize(values(1, 256), "Q9_Z")),
        ("int64", lambda: quantize(np.arange(256), "Q4_K")),
        ("float64", lambda: quantize(np.zeros((1, 256)), "Q4_K")),
        ("single number", lambda: quantize(np.float32(1), "Q4_K")),
        ("row of 100 values", lambda: quantize(values(1, 100), "Q4_K")),
        (r"importance must have shape \(256,\)", lambda: quantize(values(1, 256), "Q4_K", importance=np.ones(255))),
        ("negative", lambda: quantize(values(1, 256), "Q4_K", importance=-np.ones(256))),
        ("non-finite", lambda: quantize(values(1, 256), "Q4_K", importance=np.full(256, np.nan))),
        ("threads", lambda: quantize(values(1, 256), "Q4_K", threads=0)),
        ("backend 'abacus'", lambda: quantize(values(1, 256), "Q4_K", backend="abacus")),
        ("uint8, not int8", lambda: dequantize(np.zeros((1, 144), np.int8), "Q4_K")),
        ("144 bytes", lambda: dequantize(np.zeros((1, 143), np.uint8), "Q4_K")),
        ("144 bytes", lambda: dequantize(np.uint8(3), "Q4_K")),
    ],
)
def test_misuse_is_a_usage_error(problem, call):
    with pytest.raises(UsageError, match=problem):
        call()


def test_types_without_kernels_are_unsupported():
    with pytest.raises(UnsupportedError, match="I32"):
        quantize(values(1, 256), "I32")
    with pytest.raises(UnsupportedError, match="I32"):
        dequantize(np.zeros((1, 4), np.uint8), "I32")
