"""FP8 as published by DeepSeek, Qwen, MiniMax and Mistral: `w` in e4m3 or e5m2, multiplied by `w_scale_inv`.

A scale is for a block of the matrix (`weight_block_size`), for a row, or for the whole tensor. Source: the `fp8`
quantization of transformers, as the reference's converter reads it.
"""

from __future__ import annotations

from typing import Any

from gguf_forge.checkpoint.quantized.parts import scaled
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import reshaped

# The ending of a scale's name -> the ending of its weight's name. The second is from Mistral's own format.
_SCALES = {"_scale_inv": "", ".qscale_weight": ".weight"}
# Scales of activations. They are left out, because a GGUF file has no place for them.
_UNUSED = ("activation_scale", ".qscale_act")


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    block = _block_size(quantization)
    found = dict(stored)
    for name, scale in stored.items():
        if name.endswith(_UNUSED):
            del found[name]
        for end, instead in _SCALES.items():
            if name.endswith(end):
                weight = name.removesuffix(end) + instead
                if weight not in stored:
                    raise InputError("a scale without its weight", tensor=name, hint="is a shard missing?")
                codes, scale = _in_shards(stored[weight], scale, block)
                found[weight] = reshaped(scaled(weight, codes, scale, block), stored[weight].shape)
                del found[name]
    return found


def _in_shards(codes: TensorExpr, scale: TensorExpr, block: tuple[int, int] | None) -> tuple[TensorExpr, TensorExpr]:
    """Codes and scales as stacks of shards, if the matrix was trained in shards and blocks start anew in each of them.

    MiMo V2 is stored like this, with eight or four shards.
    """
    if block is None or len(codes.shape) != 2 or len(scale.shape) != 2:
        return codes, scale
    n_rows, (blocks, columns) = codes.shape[0], scale.shape
    if blocks == -(-n_rows // block[0]):
        return codes, scale
    count = next((n for n in (8, 4) if n_rows % n == 0 and blocks == n * -(-(n_rows // n) // block[0])), 1)
    if count == 1:
        return codes, scale
    shards = (count, n_rows // count, codes.shape[1])
    return reshaped(codes, shards), reshaped(scale, (count, blocks // count, columns))


def _block_size(quantization: Quantization) -> tuple[int, int] | None:
    size: Any = quantization.config.get("weight_block_size")
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 2 or not all(type(each) is int and each > 0 for each in size):
        raise InputError(f"weight_block_size is {size!r:.40}, not two whole numbers", file="config.json")
    return size[0], size[1]


SCHEME = Scheme("FP8", lambda quantization, stored: quantization.method == "fp8", _logical)
