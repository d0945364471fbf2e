"""The ladders of blocks: for every packed type, made of nothing but what its kernels unpack."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge import dequantize, quantize
from gguf_forge.kernels.binding import dequantizable_types, quantizable_types
from gguf_forge.toolbox.report.ladder import ladders
from gguf_forge.types.blocks import levels_of
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

PACKED = [kind for kind in TENSOR_TYPES.values() if kind.levels]
EVENLY_SPACED = [kind for kind in PACKED if kind.levels.is_uniform and not kind.levels.is_grid]


def packed_blocks(kind: TensorType) -> NDArray[np.uint8]:
    rng = np.random.default_rng(7)
    values = (rng.standard_normal((24, 1024)) + rng.standard_normal((24, 1))).astype(np.float32)
    packed = quantize(values, kind, importance=np.ones(1024, np.float32))
    return packed.reshape(-1, kind.block_bytes)


def test_every_type_that_can_be_packed_has_a_scheme() -> None:
    packed = {kind for kind in quantizable_types() & dequantizable_types() if kind.block_elements > 1}
    assert packed == set(PACKED)


@pytest.mark.parametrize("kind", PACKED, ids=str)
def test_every_stored_value_is_a_rung_of_its_ladder(kind: TensorType) -> None:
    blocks = packed_blocks(kind)
    stored = dequantize(blocks, kind)
    found = ladders(blocks, kind)
    assert found.step.shape == (len(blocks), kind.block_elements // found.scheme.values_per_scale)
    numbers = found.rung_numbers(stored)
    rungs = np.array(found.scheme.rungs, np.float32)
    np.testing.assert_allclose(rungs[numbers[numbers >= 0]], found.in_steps(stored)[numbers >= 0], atol=1e-4)
    for block in (0, len(blocks) - 1):
        levels = [found.levels(block, part) for part in range(found.step.shape[1])]
        parts = stored[block].reshape(len(levels), -1)
        for values, ladder in zip(parts, levels, strict=True):
            assert np.abs(values[:, None] - ladder).min(axis=1).max() <= 1e-6 * max(np.abs(ladder).max(), 1)


@pytest.mark.parametrize("kind", PACKED, ids=str)
def test_all_rungs_are_in_use(kind: TensorType) -> None:
    blocks = packed_blocks(kind)
    used = np.unique(ladders(blocks, kind).rung_numbers(dequantize(blocks, kind)))
    # of Q2_0 the reference's quantizer leaves one rung alone
    assert len(used) == len(kind.levels.rungs) - (kind.name == "Q2_0")  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", EVENLY_SPACED, ids=str)
def test_rungs_are_the_stored_levels(kind: TensorType) -> None:
    blocks = packed_blocks(kind)
    levels = levels_of(blocks, kind)
    found = ladders(blocks, kind)
    numbers = found.rung_numbers(dequantize(blocks, kind))
    assert levels is not None
    known = numbers >= 0
    np.testing.assert_array_equal(numbers[known], (levels - kind.levels.lowest)[known])


def test_a_block_of_zeros_has_no_rungs() -> None:
    kind = TensorType.named("Q8_0")
    block = np.zeros((1, kind.block_bytes), np.uint8)
    assert set(ladders(block, kind).rung_numbers(dequantize(block, kind)).reshape(-1).tolist()) == {-1}
