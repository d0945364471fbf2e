"""FP8 as DeepSeek, Qwen, MiniMax and Mistral publish it: `w` in e4m3 or e5m2, and `w_scale_inv`, which multiplies.

A scale belongs to a block of the matrix (`weight_block_size`), to a row, or to the whole tensor. Source: the `fp8`
quantization of transformers, as the reference's converter reads it.
"""

from __future__ import annotations

from typing import Any

from gguf_forge.checkpoint.quantized.parts import scaled
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import reshaped

# The end of a scale's name -> what stands there in the weight's name. The second is that of Mistral's own format.
_SCALES = {"_scale_inv": "", ".qscale_weight": ".weight"}
# Scales of activations, which a GGUF file has no place for.
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
    """Codes and scales as stacks of shards, where blocks begin anew in each of the parts that a matrix was trained in.

    MiMo V2 is stored so. Eight or four shards are known.
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
