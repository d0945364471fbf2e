"""Repacked blocks, read as ggml reads them, beside the values that their source has."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from gguf_forge.errors import InputError
from gguf_forge.kernels.rows import dequantize
from gguf_forge.tensors.packed import RepackNvfp4
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.element_type import ELEMENT_TYPES

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def parts(rows: int, columns: int) -> tuple[Constant, Constant, np.ndarray]:
    """Packed codes, their scales, and the values that both mean."""
    random = np.random.default_rng(rows)
    codes = random.integers(0, 16, (rows, columns)).astype(np.uint8)
    scales = random.integers(8, 0x7E, (rows, columns // 16)).astype(np.uint8).view(ml_dtypes.float8_e4m3fn)
    packed = codes[:, 0::2] | codes[:, 1::2] << 4
    values = E2M1[codes] * scales.astype(np.float32).repeat(16, 1)
    return Constant(packed, ELEMENT_TYPES["U8"]), Constant(scales, ELEMENT_TYPES["F8_E4M3"]), values


def test_nvfp4_blocks_mean_what_the_source_means() -> None:
    codes, scales, values = parts(5, 192)
    expr = RepackNvfp4(codes, scales)
    assert expr.shape == (5, 192)
    np.testing.assert_array_equal(dequantize(expr.rows(0, 5), expr.dtype), values)
    np.testing.assert_array_equal(expr.take(np.array([4, 0])), expr.rows(0, 5)[[4, 0]])


def test_nvfp4_rows_are_whole_blocks() -> None:
    codes, scales, _ = parts(2, 96)
    with pytest.raises(InputError, match="rows of 96 values are not a whole number of NVFP4 blocks of 64"):
        RepackNvfp4(codes, scales)


def test_nvfp4_codes_and_scales_fit() -> None:
    codes, scales, _ = parts(2, 64)
    with pytest.raises(InputError, match="do not fit scales"):
        RepackNvfp4(codes, Constant(scales.values[:1], scales.dtype))
