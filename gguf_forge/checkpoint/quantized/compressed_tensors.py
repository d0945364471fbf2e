"""compressed-tensors, as llm-compressor writes it: packed integers, and bytes with scales.

The config describes groups of modules, and names them by patterns. We do not evaluate these patterns, because the
shapes of a weight's parts already show most of the description.

Source: the library compressed-tensors, and the reference's converter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gguf_forge.checkpoint.quantized.parts import (
    endings,
    integers,
    mxfp4,
    nvfp4,
    of_weight,
    part,
    put_together,
    scaled,
    shape_of,
    without,
)
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError
from gguf_forge.tensors.codes import ColumnCodes, Gathered, RowCodes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Widened

# Scales of activations and of the key-value cache. They are left out, because a GGUF file has no place for them.
_UNUSED = (".input_scale", ".output_scale", ".input_zero_point", ".k_scale", ".v_scale", ".q_scale")
_PACKED = (".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx")
# Scales of whole NVFP4 matrices. Values are divided by them.
_GLOBAL_SCALES = (".weight_global_scale", ".input_global_scale")
_BITS = (2, 3, 4, 5, 6, 7, 8)


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    stored = without(stored, _UNUSED)
    stems = endings(stored, ".weight_packed")
    weights = list(_weight_configs(quantization))
    found = put_together(stored, stems, (*_PACKED, *_GLOBAL_SCALES), lambda stem: _packed_weight(stem, stored, weights))
    return _scaled_weights(found, weights, quantization.config.get("format") == "naive-quantized")


def _weight_configs(quantization: Quantization) -> Iterator[Mapping[str, Any]]:
    """The config's description of weights, for each group of modules."""
    groups = quantization.config.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        if isinstance(group, dict) and isinstance(group.get("weights"), dict):
            yield group["weights"]


def _packed_weight(stem: str, stored: Tensors, weights: list[Mapping[str, Any]]) -> TensorExpr:
    name = f"{stem}.weight"
    packed, scales = stored[f"{name}_packed"], part(stored, name, f"{name}_scale")
    if str(scales.dtype) == "F8_E4M3":
        return nvfp4(name, packed, scales, *(stored.get(stem + end) for end in _GLOBAL_SCALES), divides=True)
    if packed.dtype.row_bytes(1) == 1:
        return mxfp4(name, packed, scales)
    with of_weight(name):
        rows, columns = shape_of(part(stored, name, f"{name}_shape"))
        bits = _bits(packed, rows, columns, weights)
        codes = RowCodes(integers(packed), bits, columns)
        mine = [config for config in weights if config.get("num_bits") == bits]
        zeros: TensorExpr | int = 1 << bits - 1
        if f"{name}_zero_point" in stored or all(config.get("symmetric") is False for config in mine):
            zeros = ColumnCodes(integers(part(stored, name, f"{name}_zero_point")), bits, rows)
        groups = scales.shape[-1]
        if f"{name}_g_idx" in stored or all(config.get("actorder") == "group" for config in mine):
            index = part(stored, name, f"{name}_g_idx")
            zeros = Gathered(zeros, index) if isinstance(zeros, TensorExpr) else zeros
            return Scaled(codes, Gathered(scales, index), 1, 1, zeros)
        if columns % groups or not _may_be_group(columns // groups, bits, weights):
            raise InputError(f"{columns} columns in {groups} groups are not groups of a size that the config names")
        return Scaled(codes, scales, 1, columns // groups, zeros)


def _bits(packed: TensorExpr, rows: int, columns: int, weights: list[Mapping[str, Any]]) -> int:
    """The number of bits of a code: the one in the config that fits the packed shape."""
    for config in weights:
        bits = config.get("num_bits")
        if bits in _BITS and packed.shape == (rows, -(-columns * bits // 32)):
            return int(bits)
    raise InputError(
        f"packed weights of shape {packed.shape} are not {rows} x {columns} codes of a group of the config"
    )


def _may_be_group(size: int, bits: int, weights: list[Mapping[str, Any]]) -> bool:
    """Whether a group of the config with this number of bits has this group size. Where one has none, any size fits."""
    named = [config.get("group_size") for config in weights if config.get("num_bits") == bits]
    return any(type(one) is not int or one <= 0 or one == size for one in named)


def _scaled_weights(stored: Tensors, weights: list[Mapping[str, Any]], naive: bool) -> Tensors:
    """The logical tensors, for weights that are stored under their own names. They keep their places.

    Args:
        naive: Whether the format is `naive-quantized`, whose small floats do not count as FP8 for later decisions.
    """
    found = dict(stored)
    for stem in endings(stored, ".weight_scale"):
        name = f"{stem}.weight"
        codes, scale = part(stored, f"{name}_scale", name), stored[f"{name}_scale"]
        zeros = stored.get(f"{name}_zero_point", 0)
        block = _block(codes, scale, weights)
        found[name] = scaled(name, Widened(codes) if naive else codes, scale, block, zeros)
        for end in ("_scale", "_zero_point"):
            found.pop(name + end, None)
    return found


def _block(codes: TensorExpr, scale: TensorExpr, weights: list[Mapping[str, Any]]) -> tuple[int, int] | None:
    """The size of the blocks that have a scale each; None if the scales are for rows or for the whole tensor."""
    if len(codes.shape) < 2 or scale.shape[-2:] in ((1, 1), (codes.shape[-2], 1)) or len(scale.shape) < 2:
        return None
    structures = [config.get("block_structure") for config in weights]
    structures += [[1, config.get("group_size")] for config in weights]
    for structure in structures:
        rows, columns = structure if isinstance(structure, list) and len(structure) == 2 else (0, 0)
        fits = all(type(size) is int and size > 0 for size in (rows, columns))
        if fits and scale.shape[-2:] == (-(-codes.shape[-2] // rows), -(-codes.shape[-1] // columns)):
            return rows, columns
    return None


SCHEME = Scheme(
    "compressed-tensors", lambda quantization, stored: quantization.method == "compressed-tensors", _logical
)
