"""The levels of packed blocks, against the values that gguf-py computes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from gguf_forge import dequantize, quantize
from gguf_forge.types.blocks import levels_of
from gguf_forge.types.tensor_type import TENSOR_TYPES

CODED = {row.name: row.levels for row in TENSOR_TYPES.values() if row.levels and not row.levels.is_grid}


def _random(name: str) -> np.ndarray:
    kind = TENSOR_TYPES[name]
    packed = np.random.default_rng(7).integers(0, 256, (6, 2 * kind.block_bytes), np.uint8)
    blocks = packed.reshape(-1, kind.block_bytes)
    for at in kind.scales_at:
        blocks[:, at + 1] = 0x2C  # finite, not zero
    if name == "MXFP4":
        blocks[:, 0] = 120
    return packed


def _values(packed: np.ndarray, name: str) -> np.ndarray:
    if name in ("Q1_0", "Q2_0"):  # not known to gguf-py
        return dequantize(packed, name)
    return gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[name])


@pytest.mark.parametrize("name", CODED)
def test_in_a_group_a_level_is_a_value(name: str) -> None:
    packed, scheme = _random(name), CODED[name]
    values = _values(packed, name).reshape(-1, scheme.values_per_scale)
    levels = levels_of(packed, TENSOR_TYPES[name])
    assert levels is not None
    assert levels.shape == (6, 2 * TENSOR_TYPES[name].block_elements)
    for group, at in zip(levels.reshape(-1, scheme.values_per_scale), values, strict=True):
        pairs = np.unique(np.stack([group, at], axis=1), axis=0)
        assert len(pairs) == len(np.unique(group))
        if scheme.is_uniform and len(pairs) > 2:
            steps = np.diff(pairs[:, 1]) / np.diff(pairs[:, 0])
            np.testing.assert_allclose(steps, steps[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CODED)
def test_quantizers_use_the_levels_of_the_scheme(name: str) -> None:
    values = np.random.default_rng(3).standard_normal((64, 256)).astype(np.float32)
    levels = levels_of(quantize(values, name), TENSOR_TYPES[name])
    assert levels is not None
    scheme = CODED[name]
    assert scheme.lowest <= levels.min() and levels.max() <= scheme.highest
    if name not in ("MXFP4", "NVFP4", "Q2_0"):
        assert (levels.min(), levels.max()) == (scheme.lowest, scheme.highest)


@pytest.mark.parametrize("name", ["F32", "BF16", "IQ2_XXS", "IQ1_M", "IQ3_S"])
def test_types_without_levels(name: str) -> None:
    kind = TENSOR_TYPES[name]
    assert levels_of(np.zeros((1, kind.block_bytes), np.uint8), kind) is None
