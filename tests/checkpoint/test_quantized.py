"""Quantized checkpoints whose parts are missing, do not fit, or are none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.checkpoint.quantized import resolved, schemes
from gguf_forge.checkpoint.quantized.gptq import gptq_weight
from gguf_forge.checkpoint.quantized.scheme import Quantization
from gguf_forge.errors import ForgeError, InputError, UnsupportedError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.packed import RepackNvfp4
from gguf_forge.tensors.stored import Constant, StandIn
from gguf_forge.types.element_type import ELEMENT_TYPES
from gguf_forge.types.tensor_type import BF16, F16


def logical(tensors: dict[str, TensorExpr], **config: Any) -> dict[str, TensorExpr]:
    return dict(resolved(tensors, Quantization(config, LocalFolder(Path("model")))))


def codes(shape: tuple[int, ...], name: str = "I32") -> Constant:
    return Constant(np.zeros(shape, ELEMENT_TYPES[name].dtype), ELEMENT_TYPES[name])


def scales(*shape: int) -> Constant:
    return Constant(np.ones(shape, np.float16), F16)


def shape(*sizes: int) -> Constant:
    return Constant(np.array(sizes, np.int64), ELEMENT_TYPES["I64"])


CT = {"quant_method": "compressed-tensors", "config_groups": {"0": {"weights": {"num_bits": 4, "group_size": 32}}}}
GPTQ = {"w.qweight": codes((8, 32)), "w.qzeros": codes((2, 4)), "w.scales": scales(2, 32)}
PACKED = {"w.weight_packed": codes((8, 8)), "w.weight_scale": scales(8, 2), "w.weight_shape": shape(8, 64)}
BROKEN: dict[str, tuple[dict[str, Any], dict[str, TensorExpr], str]] = {
    "gptq without scales": (
        {"quant_method": "gptq"},
        {name: expr for name, expr in GPTQ.items() if name != "w.scales"},
        "w.weight: its part scales is missing",
    ),
    "gptq with other scales": ({"quant_method": "gptq"}, {**GPTQ, "w.scales": scales(3, 32)}, "w.weight: scales"),
    "gptq with an index of others": (
        {"quant_method": "gptq"},
        {**GPTQ, "w.g_idx": codes((63,))},
        "w.weight: g_idx has shape",
    ),
    "packed without shape": (
        CT,
        {name: expr for name, expr in PACKED.items() if name != "w.weight_shape"},
        "w.weight: its part weight_shape is missing",
    ),
    "packed of another shape": (CT, {**PACKED, "w.weight_shape": shape(8, 640)}, "w.weight: packed weights of shape"),
    "packed with a shape of three": (CT, {**PACKED, "w.weight_shape": shape(8, 8, 8)}, r"w.weight: its shape is"),
    "packed with other scales": (CT, {**PACKED, "w.weight_scale": scales(7, 2)}, "w.weight: scales of shape"),
    "packed with other zero points": (
        CT,
        {**PACKED, "w.weight_zero_point": codes((2, 2))},
        "w.weight: packed numbers of shape",
    ),
    "fp8 with scales of other blocks": (
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"w.weight": codes((256, 256), "F8_E4M3"), "w.weight_scale_inv": scales(2, 1)},
        "w.weight: scales of shape",
    ),
    "a scale without its weight": (
        {"quant_method": "fbgemm_fp8"},
        {"w.weight_scale": scales(2, 1), "v.weight": codes((2, 2), "F8_E4M3")},
        "w.weight_scale: its part weight is missing",
    ),
    "awq without zero points": (
        {"quant_method": "awq"},
        {"w.qweight": codes((64, 4)), "w.scales": scales(2, 32)},
        "w.weight: its part qzeros is missing",
    ),
    "mlx without biases": (
        {"quant_method": "mlx", "bits": 4, "group_size": 32},
        {"w.weight": codes((8, 8), "U32"), "w.scales": scales(8, 2)},
        "w.weight: its part biases is missing",
    ),
    "bitsandbytes without a state that is JSON": (
        {"quant_method": "bitsandbytes"},
        {
            "w.weight": codes((32, 1), "U8"),
            "w.weight.absmax": scales(1),
            "w.weight.quant_map": scales(16),
            "w.weight.quant_state.bitsandbytes__nf4": codes((5,), "U8"),
        },
        "w.weight: its quant_state is not a JSON object",
    ),
    "eetq of no whole tiles": (
        {"quant_method": "eetq"},
        {"w.weight": codes((63, 4), "I8"), "w.weight_scales": scales(4)},
        "w.weight: 63 x 4 codes are no whole number",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_parts_that_do_not_fit_are_told_with_their_tensor(name: str) -> None:
    config, tensors, said = BROKEN[name]
    with pytest.raises(InputError, match=said):
        logical(tensors, **config)


UNKNOWN: dict[str, tuple[dict[str, Any], dict[str, TensorExpr], str]] = {
    "method": ({"quant_method": "exl3"}, {"w.trellis": codes((8, 8), "I16")}, "quantized with exl3"),
    "bits of gptq": ({"quant_method": "gptq"}, {**GPTQ, "w.qzeros": codes((2, 5))}, "GPTQ with 5 bits"),
    "version of awq": ({"quant_method": "awq", "version": "gemv"}, {"w.qweight": codes((8, 8))}, "AWQ of version gemv"),
    "packing of autoround": (
        {"quant_method": "auto-round", "packing_format": "auto_round:fp8"},
        {"w.qweight": codes((8, 8))},
        "packing_format auto_round:fp8",
    ),
    "mode of mlx": (
        {"quant_method": "mlx", "mode": "nvfp8"},
        {"w.weight": codes((8, 8), "U32"), "w.scales": codes((8, 4), "U8")},
        "mode 'nvfp8'",
    ),
    "codes of torchao": (
        {"quant_method": "torchao"},
        {"w._weight_qdata": codes((8, 8), "U8"), "w._weight_scale": scales(8, 1)},
        "codes of type U8",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_named_with_a_hint(name: str) -> None:
    config, tensors, said = UNKNOWN[name]
    with pytest.raises(UnsupportedError, match=said) as caught:
        logical(tensors, **config)
    error: ForgeError = caught.value
    assert error.hint
    assert error.tensor or error.file


MODELOPT = {"w.weight": codes((8, 32), "U8"), "w.weight_scale": codes((8, 4), "F8_E4M3")}


@pytest.mark.parametrize(
    ("layers", "is_wide"),
    [({}, True), ({"w": {"quant_algo": "NVFP4"}}, False), ({"v": {"quant_algo": "NVFP4"}}, True)],
)
def test_nvfp4_may_be_meant_for_wide_inputs(layers: dict[str, Any], is_wide: bool) -> None:
    found = logical(MODELOPT, quant_method="modelopt", quant_algo="W4A16_NVFP4", quantized_layers=layers)
    expr = found["w.weight"]
    assert isinstance(expr, RepackNvfp4)
    assert expr.wide_input is is_wide


@pytest.mark.parametrize("scale", [np.nan, 0.0])
def test_scales_of_whole_matrices_are_finite_and_not_zero(scale: float) -> None:
    tensors = {**MODELOPT, "w.weight_scale_2": Constant(np.full(1, scale, np.float32))}
    with pytest.raises(InputError, match=r"w.weight: its scale is \[(nan|0.0)\], not one number"):
        logical(tensors, quant_method="modelopt")


@pytest.mark.parametrize("method", ["gptq", "compressed-tensors", "exl3"])
def test_a_config_that_is_left_over_changes_nothing_and_is_told(method: str, caplog: pytest.LogCaptureFixture) -> None:
    tensors: dict[str, TensorExpr] = {"w.weight": StandIn("w.weight", (8, 8), BF16)}
    with caplog.at_level(logging.WARNING):
        assert logical(tensors, quant_method=method) == tensors
    assert f"({method}), and no weight is quantized" in caplog.text


def test_every_scheme_has_a_name_of_its_own() -> None:
    names = [scheme.name for scheme in schemes()]
    assert len(set(names)) == len(names) >= 15


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Codes (n, count) as bit streams of int32 words (n, count * bits / 32)."""
    flat = (values[:, :, None] >> np.arange(bits)) & 1
    words = flat.reshape(len(values), -1, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)
    return words.sum(2).astype(np.uint32).view(np.int32)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("offset", [0, 1])
def test_gptq_is_its_formula(bits: int, named: bool, offset: int) -> None:
    random = np.random.default_rng(bits)
    values, zeros = random.integers(0, 1 << bits, (64, 32)), random.integers(0, 1 << bits, (4, 32))
    zeros[0, 0] = (1 << bits) - 1  # the greatest plus one does not wrap
    factors = random.random((4, 32), np.float32).astype(np.float16)
    groups = random.permutation(np.repeat(np.arange(4, dtype=np.int32), 16)) if named else None
    int32 = ELEMENT_TYPES["I32"]
    expr = gptq_weight(
        Constant(packed(values.T, bits).T.copy(), int32),
        Constant(packed(zeros, bits), int32),
        Constant(factors, F16),
        Constant(groups, int32) if groups is not None else None,
        16,
        offset,
    )
    of = groups if groups is not None else np.repeat(np.arange(4), 16)
    wanted = (factors[of].astype(np.float32) * (values - (zeros[of] + offset)).astype(np.float32)).T
    np.testing.assert_array_equal(expr.rows(0, expr.n_rows), wanted)
    some = random.integers(0, 32, 9)
    np.testing.assert_array_equal(expr.take(some), wanted[some])
