"""Tiny Llama checkpoints in quantized formats, made with NumPy from the definitions of the formats alone.

Each format is a function that gets the name and the values of a matrix, and gives the parts that the checkpoint stores
and the values that they stand for. Names of parts are endings after the module's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from checkpoints import TINY, tiny_llama
from ml_dtypes import bfloat16, float8_e4m3fn, float8_e5m2, float8_e8m0fnu

from gguf_forge.cli.demo_checkpoint import Shape

_NAMES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(bfloat16): "BF16",
    np.dtype(np.int32): "I32",
    np.dtype(np.uint32): "U32",
    np.dtype(np.int64): "I64",
    np.dtype(np.int8): "I8",
    np.dtype(np.uint8): "U8",
    np.dtype(float8_e4m3fn): "F8_E4M3",
    np.dtype(float8_e5m2): "F8_E5M2",
    np.dtype(float8_e8m0fnu): "F8_E8M0",
}
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
Parts = dict[str, np.ndarray]
Format = Callable[[str, np.ndarray], tuple[Parts, np.ndarray]]


@dataclass
class Made:
    """A checkpoint, and the float32 values of its quantized matrices by the names that they have in GGUF."""

    folder: Path
    values: dict[str, np.ndarray] = field(default_factory=dict)


_GGUF = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def quantized_llama(folder: Path, config: Mapping[str, Any], make: Format, shape: Shape = TINY) -> Made:
    """A tiny Llama whose projections are stored in a format.

    Args:
        folder: Where its folder is made.
        config: What config.json gets, such as `quantization_config`.
        make: The format.
        shape: The sizes of the model.
    """
    source = folder / "Tiny"
    source.mkdir(parents=True)
    for file, data in _plain(shape).items():
        (source / file).write_bytes(data)
    made = Made(source)
    for stem, weights in quantize_folder(source, config, make).items():
        layer, _, role = stem.removeprefix("model.layers.").partition(".")
        heads = {"attn_q": shape.n_head, "attn_k": shape.n_head_kv}.get(_GGUF[role])
        made.values[f"blk.{layer}.{_GGUF[role]}.weight"] = weights if heads is None else interleaved(weights, heads)
    return made


def quantize_folder(folder: Path, config: Mapping[str, Any], make: Format) -> dict[str, np.ndarray]:
    """Stores the projections of a checkpoint in a format; gives the values of each by the name of its module."""
    values: dict[str, np.ndarray] = {}
    for path in folder.glob("*.safetensors"):
        stored: dict[str, np.ndarray] = {}
        for name, weights in read_safetensors(path).items():
            stem = name.removesuffix(".weight")
            if not stem.endswith("_proj"):
                stored[name] = weights
                continue
            parts, values[stem] = make(stem, weights.astype(np.float32))
            stored |= {stem + end: part for end, part in parts.items()}
        write_safetensors(path, stored)
    for index in folder.glob("*.index.json"):
        index.unlink()
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return values


@cache
def _plain(shape: Shape) -> dict[str, bytes]:
    """The files of a tiny Llama in bf16, made once for all tests."""
    with TemporaryDirectory() as folder:
        return {file.name: file.read_bytes() for file in tiny_llama(Path(folder), shape).iterdir()}


def interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a projection in the order of llama.cpp's rotary embedding."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file of 16-bit floats."""
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    kinds = {"BF16": np.dtype(bfloat16), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}
    return {
        name: np.frombuffer(raw[begin:], np.uint8)[slice(*entry["data_offsets"])]
        .view(kinds[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in json.loads(raw[8:begin]).items()
        if name != "__metadata__"
    }


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    header: dict[str, Any] = {}
    at = 0
    for name, values in tensors.items():
        header[name] = {
            "dtype": _NAMES[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [at, at + values.nbytes],
        }
        at += values.nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values).tobytes())


def packed(codes: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """Codes as a stream of bits in words of 32 along an axis, the lowest bits first, padded with zeros."""
    codes = np.moveaxis(codes.astype(np.uint8), axis, -1)
    stream = np.unpackbits(codes[..., None], axis=-1, bitorder="little")[..., :bits].reshape(*codes.shape[:-1], -1)
    stream = np.pad(stream, [(0, 0)] * (codes.ndim - 1) + [(0, -stream.shape[-1] % 32)])
    words = np.packbits(stream, axis=-1, bitorder="little").view("<u4")
    return np.ascontiguousarray(np.moveaxis(words, -1, axis)).view(np.int32)


def grouped(
    values: np.ndarray, bits: int, group: int, kind: Any, *, symmetric: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (R, C), scales (R, C / group) of a type, and zero points: values are about (code - zero) * scale."""
    most = (1 << bits) - 1
    blocks = values.reshape(len(values), -1, group)
    if symmetric:
        scales = np.abs(blocks).max(-1) / ((most + 1) // 2 - 0.5)
        zeros = np.full(scales.shape, (most + 1) // 2)
    else:
        low, high = blocks.min(-1).clip(max=0), blocks.max(-1).clip(min=0)
        scales = (high - low) / most
        zeros = np.rint(-low / scales).clip(0, most)
    scales = scales.astype(np.float32).astype(kind)
    wide = scales.astype(np.float32)
    codes = (np.rint(blocks / wide[..., None]) + zeros[..., None]).clip(0, most).reshape(values.shape)
    return codes.astype(np.uint8), scales, zeros.astype(np.uint8)


def dequantized(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray, group: int) -> np.ndarray:
    """(code - zero) * scale in float32."""
    blocks = codes.astype(np.float32).reshape(len(codes), -1, group) - zeros.astype(np.float32)[..., None]
    return (blocks * scales.astype(np.float32)[..., None]).reshape(codes.shape)


def gptq(bits: int, group: int, *, symmetric: bool = True, order: np.ndarray | None = None) -> Format:
    """GPTQ, version 1. `order` is the group of each input (`g_idx`) if groups do not follow one another."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        g_idx = np.arange(values.shape[1]) // group if order is None else order
        sorted_columns = np.argsort(g_idx, kind="stable")
        codes, scales, zeros = grouped(values[:, sorted_columns], bits, group, np.float16, symmetric=symmetric)
        zeros = np.maximum(zeros, 1)  # version 1 stores the zero point less one
        weights = dequantized(codes, scales, zeros, group)
        back = np.argsort(sorted_columns, kind="stable")
        return {
            ".qweight": packed(codes[:, back].T, bits, 0),
            ".qzeros": packed(zeros.T - 1, bits, 1),
            ".scales": np.ascontiguousarray(scales.T),
            ".g_idx": g_idx.astype(np.int32),
        }, weights[:, back]

    return make


def awq(group: int) -> Format:
    """AutoAWQ in its order gemm."""
    place = np.array([0, 2, 4, 6, 1, 3, 5, 7])

    def words(codes: np.ndarray) -> np.ndarray:
        return packed(codes.reshape(len(codes), -1, 8)[:, :, place].reshape(codes.shape), 4, 1)

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        codes, scales, zeros = grouped(values, 4, group, np.float16, symmetric=False)
        parts = {".qweight": words(codes.T), ".qzeros": words(zeros.T), ".scales": np.ascontiguousarray(scales.T)}
        return parts, dequantized(codes, scales, zeros, group)

    return make


def compressed(bits: int, group: int, kind: Any = bfloat16, *, symmetric: bool = True) -> Format:
    """compressed-tensors' pack-quantized."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        codes, scales, zeros = grouped(values, bits, group, kind, symmetric=symmetric)
        parts = {
            ".weight_packed": packed(codes, bits, 1),
            ".weight_scale": scales,
            ".weight_shape": np.array(values.shape, np.int64),
        }
        if not symmetric:
            parts[".weight_zero_point"] = packed(zeros, bits, 0)
        return parts, dequantized(codes, scales, zeros, group)

    return make


def int8_channel(kind: Any = bfloat16) -> Format:
    """compressed-tensors' int-quantized: int8 and a scale for each row."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        scales = (np.abs(values).max(1, keepdims=True) / 127).astype(kind)
        codes = np.rint(values / scales.astype(np.float32)).clip(-128, 127).astype(np.int8)
        weights = codes.astype(np.float32) * scales.astype(np.float32)
        return {".weight": codes, ".weight_scale": scales}, weights

    return make


def mlx(bits: int, group: int, kind: Any = bfloat16, *, centered: bool = False) -> Format:
    """MLX's affine mode. `centered` makes each bias a multiple of its scale."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        codes, scales, _ = grouped(values, bits, group, kind, symmetric=centered)
        low = values.reshape(len(values), -1, group).min(-1)
        biases = (-(1 << bits - 1) * scales.astype(np.float32) if centered else low).astype(kind)
        blocks = codes.astype(np.float32).reshape(len(values), -1, group)
        weights = blocks * scales.astype(np.float32)[..., None] + biases.astype(np.float32)[..., None]
        words = packed(codes, bits, 1).view(np.uint32)
        return {".weight": words, ".scales": scales, ".biases": biases}, weights.reshape(values.shape)

    return make


def quanto(bits: int, group: int) -> Format:
    """optimum-quanto's weights of 4 or 2 bits: groups as rows, packed in planes."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        rows = values.reshape(-1, group)
        codes, scales, _ = grouped(rows, bits, group, bfloat16, symmetric=False)
        shifts = (-rows.min(1, keepdims=True)).astype(bfloat16)
        planes = np.split(np.pad(codes, ((0, -len(codes) % (8 // bits)), (0, 0))), 8 // bits)
        packed_codes = sum(part << bits * plane for plane, part in enumerate(planes)).astype(np.uint8)
        parts = {".weight._data._data": packed_codes, ".weight._scale": scales, ".weight._shift": shifts}
        weights = codes.astype(np.float32) * scales.astype(np.float32) - shifts.astype(np.float32)
        return parts, weights.reshape(values.shape)

    return make


def mxfp4_codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E2M1 codes, the exponents of their blocks of 32, biased by 127, and what they stand for."""
    blocks = values.reshape(len(values), -1, 32)
    exponents = np.floor(np.log2(np.abs(blocks).max(-1))).astype(np.int32) - 2
    scale = np.exp2(exponents.astype(np.float32))[..., None]
    codes = np.abs(np.abs(blocks / scale)[..., None] - E2M1).argmin(-1)
    weights = np.where(blocks < 0, -E2M1[codes], E2M1[codes]) * scale
    codes = codes | (blocks < 0) << 3
    return (
        codes.reshape(values.shape).astype(np.uint8),
        (exponents + 127).astype(np.uint8),
        weights.reshape(values.shape),
    )


def mxfp4(codes_end: str, scales_end: str, kind: Any = np.uint8) -> Format:
    """MXFP4 of compressed-tensors, Quark and MLX: they differ in names and in the type of the words."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        codes, exponents, weights = mxfp4_codes(values)
        words = (codes[:, ::2] | codes[:, 1::2] << 4).view(kind)
        return {codes_end: words, scales_end: exponents}, weights.astype(np.float32)

    return make


def on_grid(*, lowest: int = -8, scale_bits: int = 4) -> Format:
    """bf16 weights on Q4_0's grid, as after training that was aware of it.

    Args:
        lowest: The lowest level that is used.
        scale_bits: Of scales. With up to 4, bf16 holds each product; otherwise products are rounded.
    """

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        blocks = values.reshape(len(values), -1, 32)
        fraction, exponent = np.frexp(np.abs(blocks).max(-1) / 7)
        scales = np.ldexp(np.rint(np.ldexp(fraction, scale_bits)), exponent - scale_bits)
        levels = np.rint(blocks / scales[..., None]).clip(lowest, 7) + 0.0  # without a sign of zero
        weights = (levels * scales[..., None]).reshape(values.shape)
        assert np.array_equal(weights.astype(bfloat16), weights) == (scale_bits <= 4)
        return {".weight": weights.astype(bfloat16)}, weights.astype(np.float32)

    return make
