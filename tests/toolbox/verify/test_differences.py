"""Blocks that differ: where, and whether a quantizer could have made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from gguf_forge import quantize
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.toolbox.verify.differences import Differences, DifferentByte, differences_between
from gguf_forge.toolbox.verify.verdict import TensorCheck, Verdict, verdict_on, verdict_on_file
from gguf_forge.types.blocks import field_at
from gguf_forge.types.tensor_type import TENSOR_TYPES

# Blocks that ggml's quantizers give when the compiler fuses multiplications and additions, where they differ.
_FUSED = json.loads((Path(__file__).parent / "fused_blocks.json").read_text())
_QUANTIZED = ("Q4_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ3_S")


def _weights(rows: int = 64, seed: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, 512)) * 0.02
    values[rng.random(values.shape) < 1 / 4096] *= 20
    return values.astype(bfloat16).astype(np.float32)


def _between(name: str, expected: np.ndarray, found: np.ndarray, weights: np.ndarray) -> Differences:
    return differences_between(expected, found, TENSOR_TYPES[name], weights)


@pytest.mark.parametrize("block", _FUSED, ids=lambda block: block["type"])
def test_fused_arithmetic_makes_blocks_that_are_not_odd(block: dict[str, Any]) -> None:
    weights = np.frombuffer(bytes.fromhex(block["weights"]), bfloat16).astype(np.float32)[None]
    plain, fused = (np.frombuffer(bytes.fromhex(block[name]), np.uint8)[None] for name in ("plain", "fused"))
    importance = np.array(block["importance"], np.float32) if "importance" in block else None
    assert (quantize(weights, block["type"], importance=importance).shape, plain.shape) == (fused.shape, fused.shape)
    found = differences_between(plain, fused, TENSOR_TYPES[block["type"]], weights, importance=importance)
    assert (found.blocks, found.odd_blocks) == (1, 0)
    assert found.errors.cosine == pytest.approx(found.errors.expected_cosine, rel=0.01)


@given(st.data())
def test_a_flipped_bit_is_named(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(_QUANTIZED))
    kind, weights = TENSOR_TYPES[name], _weights(3)
    expected = quantize(weights, name)
    at = data.draw(st.integers(0, expected.size - 1))
    bit = data.draw(st.integers(0, 7))
    found = expected.copy()
    found.reshape(-1)[at] ^= 1 << bit
    row, byte = divmod(at, expected.shape[1])
    difference = differences_between(expected, found, kind, weights, first_row=100)
    block, within = divmod(byte, kind.block_bytes)
    field = field_at(kind, within)
    before, after = int(expected.reshape(-1)[at]), int(found.reshape(-1)[at])
    assert difference.first == DifferentByte(100 + row, block, field, 100 * expected.shape[1] + at, before, after)
    assert (difference.blocks, difference.bytes, dict(difference.fields)) == (1, 1, {field.split("[")[0]: 1})


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_values_that_are_not_packed(name: str) -> None:
    weights = _weights(2)
    expected = quantize(weights, name)
    found = expected.copy()
    found[1, 7 * TENSOR_TYPES[name].block_bytes + 1] ^= 0x80
    difference = _between(name, expected, found, weights)
    assert difference.first is not None
    assert (difference.blocks, difference.first.row, difference.first.block) == (1, 1, 7)
    assert difference.first.field == "value"


@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "Q2_K", "Q4_K", "Q6_K", "IQ4_XS", "IQ3_S"])
def test_other_importance_is_another_recipe(name: str) -> None:
    weights, rng = _weights(), np.random.default_rng(1)
    expected, found = (quantize(weights, name, importance=rng.random(512, np.float32) + 0.05) for _ in range(2))
    difference = _between(name, expected, found, weights)
    blocks = weights.size // TENSOR_TYPES[name].block_elements
    assert difference.blocks > 0.5 * blocks
    assert verdict_on(difference, TENSOR_TYPES[name], blocks, by_importance=True) is Verdict.RECIPE


@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "F16"])
def test_changed_weights_are_near_ones(name: str) -> None:
    weights = _weights()
    changed = weights * (1 + 0.03 * np.random.default_rng(1).standard_normal(weights.shape)).astype(np.float32)
    difference = _between(name, quantize(weights, name), quantize(changed, name), weights)
    blocks = weights.size // TENSOR_TYPES[name].block_elements
    assert verdict_on(difference, TENSOR_TYPES[name], blocks) is Verdict.RELATED


@pytest.mark.parametrize("name", [*_QUANTIZED, "F32", "BF16"])
def test_unlike_weights_are_other_ones(name: str) -> None:
    weights = _weights()
    difference = _between(name, quantize(weights, name), quantize(_weights(seed=5), name), weights)
    blocks = weights.size // TENSOR_TYPES[name].block_elements
    assert verdict_on(difference, TENSOR_TYPES[name], blocks) is Verdict.OTHER


@pytest.mark.parametrize("name", _QUANTIZED)
def test_a_broken_scale_is_damage(name: str) -> None:
    kind, weights = TENSOR_TYPES[name], _weights(4)
    expected = quantize(weights, name)
    found = expected.copy()
    at = next(byte for byte in range(kind.block_bytes) if field_at(kind, byte) == "d") + 1
    found[2, at] = 0x7C
    difference = _between(name, expected, found, weights)
    assert difference.odd_blocks == 1
    assert verdict_on(difference, kind, weights.size // kind.block_elements) is Verdict.DAMAGED


def test_of_many_differing_blocks_some_are_judged() -> None:
    weights = _weights(512)
    difference = _between("Q4_K", quantize(weights, "Q4_K"), quantize(_weights(512, seed=5), "Q4_K"), weights)
    assert difference.blocks == 1024
    assert (difference.judged, difference.values) == (64, 64 * 256)


def test_types_that_cannot_be_unpacked_are_compared_by_bytes() -> None:
    expected = np.zeros((1, 292), np.uint8)
    found = expected.copy()
    found[0, 5] = 1
    difference = _between("Q8_K", expected, found, np.zeros((1, 256), np.float32))
    assert difference.first is not None
    assert (difference.odd_blocks, difference.first.field) == (1, "qs[1]")


def _check(name: str, verdict: Verdict, changed: int, blocks: int, explanation: str | None = None) -> TensorCheck:
    info = TensorInfo(f"{name}.weight", (256,), TENSOR_TYPES[name])
    return TensorCheck(info, verdict, blocks, differences=Differences(changed), explanation=explanation)


def test_tensors_with_an_explanation_are_told_beside_those_without() -> None:
    checks = [
        _check("Q6_K", Verdict.RELATED, 900, 1000, "when requantized from Q8_0"),
        _check("Q4_K", Verdict.OTHER, 900, 1000),
    ]
    verdict, sentences = verdict_on_file(checks, keys_differ=False)
    assert verdict is Verdict.OTHER
    assert "came out the same when requantized from Q8_0." in sentences[0]
    assert len(sentences) == 2


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        ([_check("Q4_K", Verdict.IDENTICAL, 0, 100)], Verdict.IDENTICAL),
        ([_check("Q4_K", Verdict.STEPS, 9, 1000), _check("Q8_0", Verdict.IDENTICAL, 0, 10**6)], Verdict.FUSED),
        ([_check("Q4_K", Verdict.STEPS, 2, 1000)], Verdict.STEPS),
        ([_check("Q4_K", Verdict.STEPS, 4, 10**6)], Verdict.STEPS),
        ([_check("Q4_K", Verdict.STEPS, 9, 1000), _check("Q8_0", Verdict.STEPS, 1, 1000)], Verdict.STEPS),
        ([_check("Q4_K", Verdict.STEPS, 9, 1000), _check("Q6_K", Verdict.DAMAGED, 1, 1000)], Verdict.DAMAGED),
        ([_check("Q4_K", Verdict.RECIPE, 900, 1000), _check("Q6_K", Verdict.OTHER, 900, 1000)], Verdict.OTHER),
        ([_check("Q4_K", Verdict.OTHER, 900, 1000, "by way of F16")], Verdict.RECIPE),
        ([_check("Q4_K", Verdict.MISSING, 0, 1000)], Verdict.MISSING),
    ],
)
def test_verdicts_on_files(checks: list[TensorCheck], verdict: Verdict) -> None:
    found, sentences = verdict_on_file(checks, keys_differ=False)
    assert found is verdict and sentences
    found, sentences = verdict_on_file(checks, keys_differ=True)
    assert found is (Verdict.METADATA if verdict is Verdict.IDENTICAL else verdict)
    assert sentences[-1] == "Metadata differs."
