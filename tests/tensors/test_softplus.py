"""log(1 + e^x), compared with what torch 2.13 computes on an x86-64 CPU."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from gguf_forge.tensors.softplus import softplus

# SHA-256 of torch's results for all finite bfloat16 values, in the order of their bits.
_OF_TORCH = "5560e9b622a0bdb4cd1278bc699cd988fb3153698302115633172ccbf8b6fa81"


def test_all_bfloat16_values_have_the_bits_of_torch() -> None:
    values = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    finite = np.ascontiguousarray(values[np.isfinite(values)])
    assert sha256(softplus(finite).tobytes()).hexdigest() == _OF_TORCH


def test_it_is_within_a_bit_of_the_truth() -> None:
    x = np.linspace(-80, 40, 100_001, dtype=np.float32)
    true = np.logaddexp(0, x.astype(np.float64))
    assert np.all(np.abs(softplus(x) - true) <= 2 * np.spacing(true.astype(np.float32)))
