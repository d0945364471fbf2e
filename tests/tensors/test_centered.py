"""A vector without its mean: the bits of torch's `t - t.mean()`, made by torch 2.13 on AVX2 and on AVX-512."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.tensors.centered import Centered, Uncentered
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.tensor_type import BF16, F16, F32, TensorType

_OF_TORCH = {"F32": "9de0354b0ac45f4c", "F16": "0aa6d3aa0cf62378", "BF16": "243db0bc56318b6b"}


def _numbers(count: int) -> NDArray[np.float32]:
    integers = (np.arange(count, dtype=np.uint64) * 2654435761) % 2**32
    return (integers.astype(np.float64) / 2**31 - 0.5).astype(np.float32)


@pytest.mark.parametrize("kind", [F32, F16, BF16], ids=str)
def test_the_bits_are_those_of_torch(kind: TensorType) -> None:
    found = hashlib.sha256()
    for count in (1, 3, 7, 8, 31, 128, 257, 1000, 8192):
        vector = Constant(_numbers(count).astype(kind.dtype), kind)
        found.update(np.ascontiguousarray(Centered(vector).rows(0, 1)).tobytes())
    assert found.hexdigest()[:16] == _OF_TORCH[kind.name]


def test_only_vectors_have_a_mean_here() -> None:
    with pytest.raises(InputError, match="not a vector"):
        Centered(Constant(np.zeros((2, 3), np.float32)))


@pytest.mark.parametrize("count", [8, 64, 128])
def test_a_mean_is_found_that_gives_the_same_bits(count: int) -> None:
    """A centered vector has a mean that is not quite 0, so subtracting it again would change it."""
    centered = Centered(Constant(_numbers(count) + np.float32(0.3))).rows(0, 1)
    back = Uncentered(Constant(centered[0]))
    assert np.array_equal(Centered(back).rows(0, 1), centered)
