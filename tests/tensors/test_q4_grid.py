"""Weights on Q4_0's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, dequantize
from ml_dtypes import bfloat16

from gguf_forge import InputError
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tensors.arithmetic import Add
from gguf_forge.tensors.q4_grid import OnQ4Grid, levels_on_grid, on_q4_grid
from gguf_forge.tensors.row_maps import permute_rope
from gguf_forge.tensors.stored import Constant, Stored
from gguf_forge.types.tensor_type import F32


@pytest.mark.parametrize("scale", [2.0**-24, 0.0078125, -0.25, 3.5, 4096.0])
@pytest.mark.parametrize("levels", [range(-8, 8), range(-7, 8), (-5, 0, 5, 7), (0, 8), (0,), (7,), (-3, 2)])
def test_values_on_the_grid_keep_their_values(scale: float, levels: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).choice(np.array(levels), (50, 32)).astype(np.float32) * np.float32(scale)
    scales, found, on_grid = levels_on_grid(values + np.float32(0), np.dtype(np.float32))
    assert on_grid.all()
    assert found.min() >= -8
    assert found.max() <= 7
    np.testing.assert_array_equal(found * scales[:, None], values)
    np.testing.assert_array_equal(scales.astype(np.float16).astype(np.float32), scales)
    packed = OnQ4Grid(Constant(values.reshape(25, 64))).rows(0, 25)
    np.testing.assert_array_equal(dequantize(packed, GGMLQuantizationType.Q4_0), values.reshape(25, 64))


@pytest.mark.parametrize(
    "block",
    [
        [1.0, 1.1],  # no common step
        [9.0, 1.0],  # too far apart
        [8.0, -8.0, 1.0],  # Q4_0 has only one end of the two
        [2.0**-26, 2.0**-26 * 3],  # no float16 is as small
        [2.0**20, 3 * 2.0**20],  # nor as large
        [1 + 2.0**-12, 0.0],  # nor as exact
        [np.nan, 1.0],
        [np.inf, 1.0],
    ],
)
def test_other_values_are_off_the_grid(block: list[float]) -> None:
    values = np.zeros((1, 32), np.float32)
    values[0, : len(block)] = block
    assert not levels_on_grid(values, np.dtype(np.float32))[2].any()
    with pytest.raises(InputError, match="row 0 is not on the grid of Q4_0"):
        OnQ4Grid(Constant(values)).rows(0, 1)


@pytest.mark.parametrize(("kind", "bits"), [(bfloat16, 8), (bfloat16, 11), (np.float16, 8), (np.float16, 11)])
def test_values_that_were_rounded_are_found(kind: type, bits: int) -> None:
    """`bits` is how many bits the scales have; a product with a level has up to three more."""
    random = np.random.default_rng(0)
    scales = np.ldexp(random.integers(1 << bits - 1, 1 << bits, (4000, 1)), -9 - bits).astype(np.float32)
    wanted = random.integers(-8, 8, (4000, 32)).astype(np.float32)
    values = (wanted * scales).astype(kind).astype(np.float32)
    assert (values != wanted * scales).any() or (kind, bits) == (np.float16, 8)
    found, levels, on_grid = levels_on_grid(values, np.dtype(kind))
    assert on_grid.all()
    np.testing.assert_array_equal((found[:, None] * levels).astype(kind).astype(np.float32), values)
    np.testing.assert_array_equal(levels, wanted)
    if bits == 8:  # a level of 1 tells the very scale
        tells = (np.abs(wanted) == 1).any(axis=1)
        np.testing.assert_array_equal(found[tells], scales[tells, 0])


@pytest.mark.parametrize("kind", [bfloat16, np.float16])
def test_weights_that_were_not_trained_for_it_are_off_the_grid(kind: type) -> None:
    values = np.random.default_rng(0).standard_normal((20_000, 32)).astype(kind).astype(np.float32)
    assert not levels_on_grid(values, np.dtype(kind))[2].any()


def test_only_stored_weights_that_are_not_ternary_are_looked_at(tmp_path: Path) -> None:
    def stored(values: np.ndarray) -> Stored:
        path = tmp_path / "weights"
        path.write_bytes(values.astype(np.float32).tobytes())
        return Stored("w", SourceFile(path), 0, values.shape, F32)

    values = np.random.default_rng(0).integers(-8, 8, (64, 64))
    assert on_q4_grid(stored(values)) is not None
    assert on_q4_grid(permute_rope(stored(values), 2)) is not None
    assert on_q4_grid(Add(Constant(values.astype(np.float32)), 1.0)) is None
    assert on_q4_grid(stored(np.sign(values))) is None
    assert on_q4_grid(stored(np.zeros((64, 64)))) is None
    assert on_q4_grid(stored(values[:, :48])) is None
