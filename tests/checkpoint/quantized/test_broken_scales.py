"""Scales and zero points that are missing, of a wrong shape, or no numbers: each is an error that names the tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from ml_dtypes import float8_e4m3fn, float8_e8m0fnu
from quantized_checkpoints import (
    Format,
    Parts,
    awq,
    compressed,
    gptq,
    int8_channel,
    mlx,
    mxfp4,
    quantized_llama,
    quanto,
)
from quantized_formats import NF4, four_bits, nvfp4, ordered

from gguf_forge import InputError, convert

BROKEN = "model.layers.1.mlp.up_proj"
Break = Callable[[np.ndarray], np.ndarray | None]


def fp8(scale_end: str, shape: Callable[[int, int], tuple[int, ...]], kind: Any = np.float32) -> Format:
    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        codes = (values * 10).astype(float8_e4m3fn)
        return {".weight": codes, scale_end: np.full(shape(*values.shape), 0.125, kind)}, values

    return make


def torchao(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    parts, weights = int8_channel(np.float32)(stem, values)
    scales = parts[".weight_scale"]
    return {
        "._weight_qdata": parts[".weight"],
        "._weight_scale": scales,
        "._weight_zero_point": np.zeros(scales.shape, np.int32),
    }, weights


def llm_int8(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    parts, weights = int8_channel(np.float32)(stem, values)
    return {".weight": parts[".weight"], ".SCB": parts[".weight_scale"][:, 0] * 127}, weights


def nf4(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(values.shape)}
    return {
        ".weight": np.zeros((values.size // 2, 1), np.uint8),
        ".weight.absmax": np.ones(values.size // 64, np.float32),
        ".weight.quant_map": np.linspace(-1, 1, 16).astype(np.float32),
        ".weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }, values


def eetq(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    return {".weight": np.ones(values.T.shape, np.int8), ".weight_scales": np.ones(len(values), np.float16)}, values


def bitnet(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    rows, columns = values.shape
    return {".weight": np.zeros((rows // 4, columns), np.uint8), ".weight_scale": np.ones(1, np.float32)}, values


def hqq(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    n_groups = values.size // 64
    return {
        ".W_q": np.zeros((n_groups // 2, 64), np.uint8),
        ".scale": np.ones((n_groups, 1), np.float16),
        ".zero": np.ones((n_groups, 1), np.float16),
        ".shape": np.array(values.shape),
        ".axis": np.array([1], np.int32),
        ".packing": np.frombuffer(b"4bit_u8", np.uint8),
    }, values


def quanto_int8(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    parts, weights = int8_channel()(stem, values)
    return {".weight._data": parts[".weight"], ".weight._scale": parts[".weight_scale"]}, weights


def config(method: str, **more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **more}}


def groups(**weights: Any) -> dict[str, Any]:
    return config("compressed-tensors", config_groups={"group_0": {"weights": weights}})


INT4 = groups(num_bits=4, group_size=32)
FLOAT8 = groups(num_bits=8, type="float", strategy="channel")
NESTED = config("bitsandbytes", load_in_4bit=True)
MXFP4 = {"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}
MLX = {"quantization": {"bits": 4, "group_size": 64, "mode": "affine"}}
# Format, config, and the ending of the scales' names.
SCHEMES: dict[str, tuple[Format, dict[str, Any], str]] = {
    "gptq": (gptq(4, 32), config("gptq"), ".scales"),
    "awq": (awq(32), config("awq"), ".scales"),
    "compressed-tensors int4": (compressed(4, 32), INT4, ".weight_scale"),
    "compressed-tensors int4, asymmetric": (compressed(4, 32, symmetric=False), INT4, ".weight_scale"),
    "compressed-tensors int8": (int8_channel(), groups(num_bits=8), ".weight_scale"),
    "mlx": (mlx(4, 64), MLX, ".scales"),
    "fp8 in blocks": (
        fp8(".weight_scale_inv", lambda r, c: (r // 128, c // 128)),
        config("fp8", weight_block_size=[128, 128]),
        ".weight_scale_inv",
    ),
    "fp8 of the tensor": (fp8(".weight_scale", lambda r, c: (1,)), config("modelopt"), ".weight_scale"),
    "mxfp4": (mxfp4(".weight", ".weight_scale"), config("quark"), ".weight_scale"),
    "torchao": (torchao, config("torchao"), "._weight_scale"),
    "llm.int8": (llm_int8, config("bitsandbytes", load_in_8bit=True), ".SCB"),
    "autoround": (gptq(4, 32), config("auto-round"), ".scales"),
    "bitnet": (bitnet, config("bitnet"), ".weight_scale"),
    "eetq": (eetq, config("eetq"), ".weight_scales"),
    "fbgemm": (fp8(".weight_scale", lambda r, c: (r, 1)), config("fbgemm_fp8"), ".weight_scale"),
    "fp8 of quark": (fp8(".weight_scale", lambda r, c: (1,)), config("quark"), ".weight_scale"),
    "hqq": (hqq, config("hqq"), ".scale"),
    "quanto int8": (quanto_int8, config("quanto"), ".weight._scale"),
    "quanto 4 bits": (quanto(4, 64), config("quanto"), ".weight._scale"),
    "nvfp4 of compressed-tensors": (nvfp4(compressed_tensors=True), INT4, ".weight_scale"),
    "nvfp4 of modelopt": (nvfp4(), config("modelopt", quant_algo="NVFP4"), ".weight_scale"),
    "mxfp4 of compressed-tensors": (mxfp4(".weight_packed", ".weight_scale"), INT4, ".weight_scale"),
    "mxfp4 of mlx": (mxfp4(".weight", ".scales", np.uint32), MXFP4, ".scales"),
    "mxfp4 beside fp8": (mxfp4(".weight", ".weight_scale"), config("fp8", store_dtype="mxfp4"), ".weight_scale"),
    "fp8 of modelopt's rows": (
        fp8(".weight_scale", lambda r, c: (r,)),
        config("modelopt", quant_algo="FP8_PER_CHANNEL_PER_TOKEN"),
        ".weight_scale",
    ),
    "fp8 of compressed-tensors": (fp8(".weight_scale", lambda r, c: (r, 1)), FLOAT8, ".weight_scale"),
    "fp8 with mistral's names": (fp8(".qscale_weight", lambda r, c: ()), config("fp8"), ".qscale_weight"),
    "fp8 with bytes for scales": (
        fp8(".weight_scale_inv", lambda r, c: (r // 128, c // 128), kind=float8_e8m0fnu),
        config("fp8", weight_block_size=[128, 128]),
        ".weight_scale_inv",
    ),
    "nf4, quantized twice": (four_bits(NF4, "nf4", 64, nested=True), NESTED, ".weight.nested_absmax"),
    "autoround as awq": (awq(32), config("auto-round", packing_format="auto_round:auto_awq"), ".scales"),
    "nf4": (nf4, config("bitsandbytes", load_in_4bit=True), ".weight.absmax"),
}


def one_number(number: float) -> Break:
    def change(scales: np.ndarray) -> np.ndarray:
        changed = scales.copy()
        is_small = scales.dtype.itemsize == 1  # neither e4m3 nor E8M0 has an infinity
        broken = 255 if scales.dtype == np.uint8 else np.nan if is_small else number
        changed.reshape(-1)[scales.size // 2] = broken
        return changed

    return change


def refuse(scheme: str, change: Break, problem: str, folder: Path, *, end: str | None = None) -> None:
    """Changes a part of one weight, and expects an error that names this weight."""
    make, settings, scales_end = SCHEMES[scheme]

    def broken(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        parts, weights = make(stem, values)
        if stem == BROKEN:
            changed = change(parts.pop(end or scales_end))
            if changed is not None:
                parts[end or scales_end] = changed
        return parts, weights

    made = quantized_llama(folder, settings, broken)
    with pytest.raises(InputError, match=problem) as raised:
        convert(made.folder, folder / "m.gguf", types="auto")
    assert raised.value.tensor in (f"{BROKEN}.weight", "blk.1.ffn_up.weight")
    assert raised.value.hint
    assert not (folder / "m.gguf").exists()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scales_that_are_missing(scheme: str, tmp_path: Path) -> None:
    refuse(scheme, lambda scales: None, r"part .* is missing|scales are missing", tmp_path)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scales_of_a_wrong_shape(scheme: str, tmp_path: Path) -> None:
    refuse(
        scheme,
        lambda scales: np.concatenate([np.atleast_1d(scales)] * 2, -1),
        r"do not fit|are not (rows|groups)|inputs|cannot be seen",
        tmp_path,
    )


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_scales_that_are_no_numbers(scheme: str, number: float, tmp_path: Path) -> None:
    problem = "a scale (or zero point )?is (infinite or )?not a number|or infinite where it divides"
    refuse(scheme, one_number(number), problem, tmp_path)


def test_the_only_scale_of_a_tensor_must_not_be_zero(tmp_path: Path) -> None:
    refuse("fp8 of the tensor", one_number(0), "the scale of the whole tensor is zero", tmp_path)


@pytest.mark.parametrize("zero", [-129, 300])
def test_zero_points_that_no_code_can_have(zero: int, tmp_path: Path) -> None:
    refuse("torchao", one_number(zero), "zero points from .* do not fit codes", tmp_path, end="._weight_zero_point")


@pytest.mark.parametrize(
    ("scheme", "end"),
    [
        ("gptq", ".qzeros"),
        ("awq", ".qzeros"),
        ("mlx", ".biases"),
        ("hqq", ".zero"),
        ("quanto 4 bits", ".weight._shift"),
    ],
)
def test_zero_points_and_biases_that_are_missing(scheme: str, end: str, tmp_path: Path) -> None:
    refuse(scheme, lambda zeros: None, "is missing", tmp_path, end=end)


@pytest.mark.parametrize(
    ("scheme", "end"),
    [
        ("gptq", ".qweight"),
        ("gptq", ".qzeros"),
        ("awq", ".qweight"),
        ("awq", ".qzeros"),
        ("autoround", ".qweight"),
        ("compressed-tensors int4", ".weight_packed"),
        ("compressed-tensors int4, asymmetric", ".weight_zero_point"),
        ("mlx", ".weight"),
        ("bitnet", ".weight"),
        ("quanto 4 bits", ".weight._data._data"),
    ],
)
def test_codes_that_are_no_integers(scheme: str, end: str, tmp_path: Path) -> None:
    problem = "codes are numbers of type F32, not integers"
    refuse(scheme, lambda codes: codes.astype(np.float32), problem, tmp_path, end=end)


@pytest.mark.parametrize(
    ("make", "settings", "end"),
    [
        (gptq(4, 32), config("gptq", desc_act=True), ".g_idx"),
        (ordered(4, 32), groups(num_bits=4, group_size=32, actorder="group"), ".weight_g_idx"),
        (compressed(4, 32, symmetric=False), groups(num_bits=4, symmetric=False), ".weight_zero_point"),
    ],
)
def test_parts_that_the_config_asks_for(make: Format, settings: dict[str, Any], end: str, tmp_path: Path) -> None:
    def without(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        parts, weights = make(stem, values)
        return {name: part for name, part in parts.items() if stem != BROKEN or name != end}, weights

    made = quantized_llama(tmp_path, settings, without)
    with pytest.raises(InputError, match=f"{end[1:]} is missing") as raised:
        convert(made.folder, tmp_path / "m.gguf", types="auto")
    assert raised.value.tensor == f"{BROKEN}.weight"


@pytest.mark.parametrize("scheme", ["gptq", "compressed-tensors int4", "mlx", "fp8 in blocks", "nf4"])
def test_a_zero_scale_of_a_block_is_a_block_of_zeros(scheme: str, tmp_path: Path) -> None:
    make, settings, end = SCHEMES[scheme]

    def with_zeros(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        parts, weights = make(stem, values)
        if stem == BROKEN:
            parts[end] = np.zeros_like(parts[end])
            parts |= {".biases": parts[end]} if ".biases" in parts else {}
        return parts, weights

    made = quantized_llama(tmp_path, settings, with_zeros)
    (file,) = convert(made.folder, tmp_path / "m.gguf", types="F32")
    found = {tensor.name: tensor.data for tensor in GGUFReader(file.path).tensors}
    assert not found["blk.1.ffn_up.weight"].any()
    assert found["blk.0.ffn_up.weight"].any()
