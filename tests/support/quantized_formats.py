"""Formats of quantized checkpoints that come in many variants: how a matrix is stored, and what values it then has.

They are written down from their definitions with NumPy alone. `tests/reference/make_quantized_values.py` lets the
formats' own libraries read what these functions make. `quantized_checkpoints.py` has the formats of llama's tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_dtypes import bfloat16, float8_e4m3fn, float8_e5m2, float8_e8m0fnu
from quantized_checkpoints import E2M1, Format, Parts, dequantized, gptq, grouped, packed

# What one scale of a matrix is for: the number of rows and columns of its block; 0 stands for all of them.
PER_TENSOR, PER_ROW = (0, 0), (1, 0)
_FP8_MOST = {float8_e4m3fn: 448, float8_e5m2: 57344}
# The values of the codes of NF4 and FP4, by which bitsandbytes multiplies a block's scale.
NF4 = np.array(
    [-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.091050036, 0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1],
    np.float32,
)  # fmt: skip
FP4 = np.array([0, 0.0052083, 0.66666669, 1, 0.33333334, 0.5, 0.16666667, 0.25], np.float32)
FP4 = np.concatenate([FP4, -FP4])
_PER_INT8 = np.float32(0.007874015718698502)


def spread(numbers: np.ndarray, block: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """One number for each value of a matrix, from those of its blocks."""
    rows, columns = (size or whole for size, whole in zip(block, shape, strict=True))
    wide = numbers.astype(np.float32).repeat(rows, 0).repeat(columns, 1)
    return wide[: shape[0], : shape[1]]


def block_most(values: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """The greatest magnitude of each block; the last ones of rows and columns may be smaller."""
    rows, columns = (size or whole for size, whole in zip(block, values.shape, strict=True))
    padded = np.pad(np.abs(values), [(0, -values.shape[0] % rows), (0, -values.shape[1] % columns)])
    return padded.reshape(len(padded) // rows, rows, -1, columns).max((1, 3))


def fp8(
    end: str,
    block: tuple[int, int],
    *,
    kind: Any = float8_e4m3fn,
    scale_kind: Any = np.float32,
    scalar: bool = False,
    extra: tuple[str, ...] = (),
) -> Format:
    """8-bit floats and scales, which multiply.

    Args:
        end: The ending of the scales' name.
        block: What a scale is for.
        kind: The type of the codes.
        scale_kind: The type of the scales. np.uint8 means powers of two (E8M0).
        scalar: Whether the scale of a tensor has no dimension.
        extra: Endings of scales of activations, which no weight is multiplied with.
    """

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        most = block_most(values, block) / _FP8_MOST[kind]
        if scale_kind is np.uint8:
            exponents = np.ceil(np.log2(most)).astype(np.int32)
            stored, scales = (exponents + 127).astype(np.uint8), np.exp2(exponents.astype(np.float32))
        else:
            stored = most.astype(np.float32).astype(scale_kind)
            scales = stored.astype(np.float32)
        factor = spread(scales, block, values.shape)
        codes = (values / factor).astype(kind)
        parts = {".weight": codes, end: stored.reshape(()) if scalar else stored}
        return parts | {each: np.full((), 0.5, np.float32) for each in extra}, codes.astype(np.float32) * factor

    return make


def gptq_variant(bits: int, group: int, *, version: int = 1, order: str = "", symmetric: bool = True) -> Format:
    """GPTQ of rows of any width: groups of the whole row (-1), groups in a random order, both versions."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        columns = values.shape[1]
        size = columns if group == -1 else group
        groups = np.random.default_rng(columns).permutation(np.arange(columns) // size) if order else None
        parts, weights = gptq(bits, size, symmetric=symmetric, order=groups)(stem, values)
        if version == 2:  # zero points as they are: one more than in version 1
            zeros = unpacked(parts[".qzeros"], bits, len(values)) + 1
            parts[".qzeros"] = packed(zeros, bits, 1)
        if order == "none":
            del parts[".g_idx"]
        return parts, weights

    return make


def without_index(make: Format) -> Format:
    """GPTQ without `g_idx`, as AutoRound writes it."""

    def made(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        parts, weights = make(stem, values)
        return {name: part for name, part in parts.items() if name != ".g_idx"}, weights

    return made


def unpacked(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The codes of rows of words."""
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    flat = stream[:, : count * bits].reshape(len(words), count, bits)
    return (flat << np.arange(bits)).sum(2).astype(np.uint8)


def per_row(make: Callable[[int], Format]) -> Format:
    """A format of groups whose groups are whole rows."""
    return lambda stem, values: make(values.shape[1])(stem, values)


def by_role(attention: Format, rest: Format) -> Format:
    """Two formats in one model."""
    return lambda stem, values: (attention if "self_attn" in stem else rest)(stem, values)


def ordered(bits: int, group: int, *, symmetric: bool = True) -> Format:
    """compressed-tensors' pack-quantized with `weight_g_idx`: columns of a group lie apart."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        index = np.random.default_rng(len(values)).permutation(np.arange(values.shape[1]) // group)
        sorting = np.argsort(index, kind="stable")
        back = np.argsort(sorting, kind="stable")
        codes, scales, zeros = grouped(values[:, sorting], bits, group, bfloat16, symmetric=symmetric)
        parts = {
            ".weight_packed": packed(codes[:, back], bits, 1),
            ".weight_scale": scales,
            ".weight_shape": np.array(values.shape, np.int64),
            ".weight_g_idx": index.astype(np.int32),
        }
        if not symmetric:
            parts[".weight_zero_point"] = packed(zeros, bits, 0)
        return parts, dequantized(codes, scales, zeros, group)[:, back]

    return make


def int8(
    codes_end: str, scale_end: str, *, block: tuple[int, int] = PER_ROW, kind: Any = np.float32, zero_end: str = ""
) -> Format:
    """int8 codes with scales of rows, groups or the tensor, and zero points if `zero_end` names them."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        scales = (block_most(values, block) / 127).astype(np.float32).astype(kind)
        zeros = np.zeros(scales.shape, np.int8)
        if zero_end:
            zeros = np.random.default_rng(values.size).integers(-9, 9, scales.shape).astype(np.int8)
        factor, zero = (spread(numbers, block, values.shape) for numbers in (scales, zeros))
        codes = (np.rint(values / factor) + zero).clip(-128, 127).astype(np.int8)
        parts = {codes_end: codes, scale_end: scales} | ({zero_end: zeros} if zero_end else {})
        return parts, (codes.astype(np.float32) - zero) * factor

    return make


def llm_int8(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    """bitsandbytes' LLM.int8()."""
    most = np.abs(values).max(1).astype(np.float32)
    codes = np.rint(values * (127 / most)[:, None]).clip(-127, 127).astype(np.int8)
    weights = codes.astype(np.float32) * most[:, None] * _PER_INT8
    return {".weight": codes, ".SCB": most, ".weight_format": np.zeros((), np.uint8)}, weights


def four_bits(levels: np.ndarray, kind: str, block: int, *, nested: bool = False) -> Format:
    """bitsandbytes' 4-bit codes in blocks of the flat weight, which may cross rows."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        flat = np.pad(values.reshape(-1), (0, -values.size % block))
        absmax = np.abs(flat.reshape(-1, block)).max(1).astype(np.float32)
        state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16"}
        state["shape"] = list(values.shape)
        parts: Parts = {".weight.quant_map": levels}
        if nested:
            offset = float(absmax.mean())
            table = np.linspace(-1, 1, 256).astype(np.float32)
            padded = np.pad(absmax - np.float32(offset), (0, -len(absmax) % 256)).reshape(-1, 256)
            outer = np.abs(padded).max(1).astype(np.float32)
            codes = np.abs(padded[..., None] / outer[:, None, None] - table).argmin(-1).reshape(-1)[: len(absmax)]
            of_code = outer.repeat(256)[: len(absmax)]
            absmax = table[codes] * of_code + np.float32(offset)
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
            parts |= {".weight.absmax": codes.astype(np.uint8)}
            parts |= {".weight.nested_absmax": outer, ".weight.nested_quant_map": table}
        else:
            parts[".weight.absmax"] = absmax
        factor = absmax.repeat(block)[: values.size]
        codes = np.abs(values.reshape(-1, 1) / factor[:, None] - levels).argmin(1).astype(np.uint8)
        parts[".weight"] = (codes[0::2] << 4 | codes[1::2])[:, None]
        parts[f".weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
        return parts, (levels[codes] * factor).reshape(values.shape)

    return make


def bitnet(stem: str, values: np.ndarray, *, multiplies: bool = False) -> tuple[Parts, np.ndarray]:
    """BitNet: four rows of -1, 0 and 1 in one stored row, and a scale that divides."""
    mean = np.abs(values).mean(dtype=np.float32)
    scale = np.array([mean if multiplies else 1 / mean], bfloat16)
    codes = np.rint(values / mean).clip(-1, 1).astype(np.int8)
    stored = sum(part.astype(np.uint8) << 2 * at for at, part in enumerate(np.split(codes + 1, 4)))
    factor = scale.astype(np.float32)
    weights = codes.astype(np.float32) * (factor if multiplies else np.float32(1) / factor)
    return {".weight": np.asarray(stored, np.uint8), ".weight_scale": scale}, weights


def hqq(packing: str, group: int, axis: int) -> Format:
    """HQQ: a matrix of groups, packed in planes of which the first is in the highest bits."""
    bits = int(packing[0])
    words = 10 if packing.endswith("32") else 8 // bits

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        groups = values.reshape(-1, group) if axis else values.reshape(group, -1).T
        low, high = groups.min(1, keepdims=True), groups.max(1, keepdims=True)
        scales = np.maximum((high - low) / ((1 << bits) - 1), np.float32(1e-5)).astype(np.float16)
        zeros = (-low / scales.astype(np.float32)).astype(np.float16)
        wide, zero = scales.astype(np.float32), zeros.astype(np.float32)
        codes = np.rint(groups / wide + zero).clip(0, (1 << bits) - 1).astype(np.int32)
        weights = (codes.astype(np.float32) - zero) * wide
        matrix, scale_shape = (codes, (-1, 1)) if axis else (codes.T, (1, -1))
        padded = np.pad(matrix, [(0, -len(matrix) % words), (0, 0)]).reshape(words, -1, matrix.shape[1])
        stored = sum(part << bits * (words - 1 - at) for at, part in enumerate(padded))
        parts = {
            ".W_q": np.asarray(stored).astype(np.int32 if words == 10 else np.uint8),
            ".scale": scales.reshape(scale_shape),
            ".zero": zeros.reshape(scale_shape),
            ".shape": np.array(values.shape, np.int64),
            ".axis": np.array(axis, np.int32),
            ".packing": np.frombuffer(packing.encode(), np.uint8),
            ".nbits": np.array(bits, np.int32),
            ".group_size": np.array(group, np.int32),
        }
        return parts, (weights if axis else weights.T).reshape(values.shape)

    return make


def eetq(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    """EETQ: int8 in the order of CUTLASS kernels."""
    n_out, n_in = values.shape
    scales = (np.abs(values).max(1) / 127).astype(np.float16)
    factor = scales.astype(np.float32)[:, None]
    codes = np.rint(values / factor).clip(-128, 127).astype(np.int8).T
    order = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]
    rows = codes.reshape(-1, 16, n_out)[:, order].reshape(n_in, n_out)
    tiles = rows.T.reshape(n_out // 2, 2, n_in // 64, 64).swapaxes(1, 2)
    stored = (tiles.reshape(-1, 4)[:, [0, 2, 1, 3]].astype(np.int16) + 128).astype(np.uint8).view(np.int8)
    return {".weight": stored.reshape(n_in, n_out), ".weight_scales": scales}, codes.T.astype(np.float32) * factor


def powers_of_two(make: Format, end: str) -> Format:
    """A format whose scales are exponents, with their own type (E8M0)."""

    def made(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        parts, weights = make(stem, values)
        return parts | {end: parts[end].view(float8_e8m0fnu)}, weights

    return made


def nvfp4(*, compressed_tensors: bool = False, has_tensor_scale: bool = True) -> Format:
    """NVFP4: 4-bit floats in blocks of 16 with scales in e4m3, and one more scale for all."""

    def make(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        of_tensor = np.float32(np.abs(values).max() / (6 * 448)) if has_tensor_scale else np.float32(1)
        stored_scale = np.float32(1) / of_tensor if compressed_tensors else of_tensor
        of_tensor = np.float32(1) / stored_scale if compressed_tensors else of_tensor
        blocks = values.reshape(len(values), -1, 16)
        scales = np.maximum(np.abs(blocks).max(-1) / 6 / of_tensor, np.float32(2.0**-9)).astype(float8_e4m3fn)
        factor = scales.astype(np.float32)[..., None]
        magnitudes = np.abs(np.abs(blocks / of_tensor / factor)[..., None] - E2M1).argmin(-1)
        codes = (magnitudes | (blocks < 0) << 3).astype(np.uint8).reshape(values.shape)
        weights = np.where(blocks < 0, -E2M1[magnitudes], E2M1[magnitudes]) * factor * of_tensor
        words, one = codes[:, ::2] | codes[:, 1::2] << 4, np.array([0.25], np.float32)
        if compressed_tensors:
            parts = {".weight_packed": words, ".weight_scale": scales}
            parts |= {".weight_global_scale": np.array([stored_scale], np.float32), ".input_global_scale": 1 / one}
        else:
            parts = {".weight": words, ".weight_scale": scales, ".input_scale": one.reshape(())}
            parts |= {".weight_scale_2": np.array(stored_scale, np.float32)} if has_tensor_scale else {}
        return parts, weights.astype(np.float32).reshape(values.shape)

    return make


def sixteen_bits(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
    """Weights that are not quantized."""
    stored = values.astype(bfloat16)
    return {".weight": stored}, stored.astype(np.float32)


def renamed(make: Format, names: Mapping[str, str], *, drop: tuple[str, ...] = (), **more: np.ndarray) -> Format:
    """A format under other names of parts, without some and with some more."""

    def made(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        parts, weights = make(stem, values)
        return {names.get(name, name): part for name, part in parts.items() if name not in drop} | more, weights

    return made


def mlx_words(make: Format) -> Format:
    """A format in MLX's words of 32 bits, with the bytes of its scales."""

    def made(stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        parts, weights = make(stem, values)
        return {".weight": parts[".weight"].view(np.uint32), ".scales": parts[".scales"].view(np.uint8)}, weights

    return made
