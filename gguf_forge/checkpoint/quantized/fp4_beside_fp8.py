"""MXFP4 experts in a checkpoint whose other matrices are FP8, as in MiMo V2 (`store_dtype`).

An expert's `w.weight` (R, C / 2) has two codes in a byte, and `w.weight_scale` (R, C / 32) an exponent for each 32.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.fp8 import SCHEME as FP8
from gguf_forge.checkpoint.quantized.parts import of_weight, scaled_in_place
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import UnsupportedError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.packed import RepackMxfp4

_GROUP = 32


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    group = quantization.config.get("mxfp4_block_size", _GROUP)
    if group != _GROUP:
        raise UnsupportedError(f"mxfp4_block_size is {group!r:.40}; {_GROUP} is known", file="config.json")
    found = scaled_in_place(stored, _repacked)
    return FP8.logical(found, quantization) if quantization.method == "fp8" else found


def _repacked(name: str, codes: TensorExpr, scale: TensorExpr) -> TensorExpr:
    with of_weight(name):
        return RepackMxfp4(codes, scale)


def _fits(quantization: Quantization, stored: Tensors) -> bool:
    return quantization.config.get("store_dtype") == "mxfp4"


SCHEME = Scheme("MXFP4 beside FP8", _fits, _logical)
