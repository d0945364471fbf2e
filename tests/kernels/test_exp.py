"""The exponential function beside torch's, by digests that torch's own `exp` made on x86-64 with AVX-512."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.kernels.binding import exp_values


def test_the_bits_are_those_of_torch() -> None:
    """torch 2.13 made the digests: of floats from all over their range, and of logarithms as Mamba stores them."""
    bits = (np.arange(1 << 16, dtype=np.uint64) * 65521 % (1 << 32)).astype(np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 87)]
    assert len(values) == 34148
    digest = hashlib.sha256(exp_values(values).tobytes()).hexdigest()
    assert digest == "b77a1dc20bf8a550a04ecee15bf708bacb4db838c9d6063a1c16d1210fa8d318"
    decays = np.log(np.random.default_rng(5).uniform(1, 16, 4096)).astype(np.float32)
    digest = hashlib.sha256(exp_values(decays).tobytes()).hexdigest()
    assert digest == "ce65da928d2f756ac169b1528e00c21bd79a1b311fe4b4777ce7ddb3f07c164f"


@given(st.floats(width=32, min_value=-87, max_value=87))
def test_no_result_is_far_from_the_nearest(x: float) -> None:
    nearest = np.float32(np.exp(np.float64(x)))
    found = exp_values(np.array([x], np.float32))[0]
    assert abs(int(found.view(np.int32)) - int(nearest.view(np.int32))) <= 1


@pytest.mark.parametrize(
    ("x", "wanted"), [(0.0, 1.0), (-np.inf, 0.0), (np.inf, np.inf), (100.0, np.inf), (-200.0, 0.0)]
)
def test_ends_of_the_range(x: float, wanted: float) -> None:
    assert exp_values(np.array([x], np.float32))[0] == wanted


def test_nan_stays() -> None:
    assert np.isnan(exp_values(np.array([np.nan], np.float32)))[0]
    assert exp_values(np.empty((0, 3), np.float32)).shape == (0, 3)
