"""Positions of sines and cosines, compared with those that torch 2.13 computes on an x86-64 CPU with AVX-512."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from gguf_forge.architectures.sinusoids import cosine, sine, sinusoids

# Width -> SHA-256 of 1500 positions as torch makes them in the reference's converter.
_OF_TORCH = {
    64: "6bc89347f025908a91b752148fc0459e5ab03e3d4d02a6bbaf4e73fe55d96f58",
    768: "f446a03c62d04b95eefbf6aad3b00fd02cb0c29e957756a9ca048a0cd3d23e9f",
    1024: "6bd3feb3adfbc3f238b71fcc1d212c2a89836b2b3fc09743e7467b5daec0da86",
    1280: "da8c9520c6fbe8a00c1d8f9330cd61d80b09d94574ba322bb401e58e94326bad",
}


@pytest.mark.parametrize("channels", _OF_TORCH)
def test_positions_have_the_bits_of_torch(channels: int) -> None:
    assert sha256(sinusoids(1500, channels).tobytes()).hexdigest() == _OF_TORCH[channels]


def test_both_waves_are_within_a_bit_of_the_truth() -> None:
    x = np.linspace(-1500, 1500, 20_001, dtype=np.float32)
    for mine, true in ((sine(x), np.sin(x.astype(np.float64))), (cosine(x), np.cos(x.astype(np.float64)))):
        assert np.all(np.abs(mine - true) <= 0.61 * np.spacing(np.abs(mine)))
