"""Levels that are not the nearest ones."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge import quantize
from gguf_forge.toolbox.verify.nearest import misplaced_values
from gguf_forge.types.tensor_type import TENSOR_TYPES

CODED = [row.name for row in TENSOR_TYPES.values() if row.levels and not row.levels.is_grid]


def _weights(seed: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((32, 512)) * 0.02
    values[rng.random(values.shape) < 1 / 4096] *= 20
    return values.astype(np.float32)


def _share(packed: np.ndarray, name: str, values: np.ndarray) -> float:
    counts = misplaced_values(packed, TENSOR_TYPES[name], values)
    assert counts is not None
    return float(counts.sum()) / values.size


@pytest.mark.parametrize("importance", [False, True])
@pytest.mark.parametrize("name", CODED)
def test_a_quantizer_takes_the_nearest_levels(name: str, importance: bool) -> None:
    values = _weights()
    weighed = np.random.default_rng(1).random(512).astype(np.float32) + 0.01 if importance else None
    share = _share(quantize(values, name, importance=weighed), name, values)
    assert share <= (0.003 if TENSOR_TYPES[name].rounds_late else 0)


@pytest.mark.parametrize("name", [name for name in CODED if name not in ("TQ1_0", "TQ2_0", "Q1_0", "Q2_0")])
def test_other_weights_are_told(name: str) -> None:
    values = _weights()
    other = values * (1 + 0.05 * np.random.default_rng(2).standard_normal(values.shape)).astype(np.float32)
    assert _share(quantize(other, name), name, values) > 0.003
    assert _share(quantize(_weights(9), name), name, values) > 0.2


@pytest.mark.parametrize("name", CODED)
def test_most_flipped_bits_are_told(name: str) -> None:
    values, kind = _weights(), TENSOR_TYPES[name]
    packed = quantize(values, name)
    blocks = packed.reshape(-1, kind.block_bytes)
    rng = np.random.default_rng(8)
    blocks[np.arange(len(blocks)), rng.integers(0, kind.block_bytes, len(blocks))] ^= 1 << rng.integers(
        0, 8, len(blocks)
    ).astype(np.uint8)
    counts = misplaced_values(packed, kind, values)
    assert counts is not None
    assert np.count_nonzero(counts) > 0.8 * len(counts)


def test_types_without_levels() -> None:
    assert (
        misplaced_values(np.zeros((1, 66), np.uint8), TENSOR_TYPES["IQ2_XXS"], np.zeros((1, 256), np.float32)) is None
    )
