"""DeepSeek V4's own storage: experts in FP4 and other matrices in FP8. Each `w.weight` has scales in `w.scale`.

Two FP4 codes are packed into a byte, and 32 values of a row share a scale. In FP8, blocks of 128 x 128 share a scale.
Scales are powers of two (E8M0). Source: `inference/convert.py` of the released models.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import bits_as, of_weight, scaled
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.packed import RepackMxfp4

_SCALE, _WEIGHT = ".scale", ".weight"
_BLOCK = (128, 128)


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    found = dict(stored)
    for name, scale in stored.items():
        if name.endswith(_SCALE):
            weight = name.removesuffix(_SCALE) + _WEIGHT
            if weight not in stored:
                raise InputError("a scale without its weight", tensor=name, hint="is a shard missing?")
            found[weight] = _weight(weight, stored[weight], scale)
            del found[name]
    return found


def _weight(name: str, codes: TensorExpr, scale: TensorExpr) -> TensorExpr:
    with of_weight(name):
        if codes.dtype.name in ("I8", "U8"):
            return RepackMxfp4(codes, scale)
        are_exponents = scale.dtype.row_bytes(1) == 1  # torch had no type for them for long
        return scaled(name, codes, bits_as(scale, "F8_E8M0") if are_exponents else scale, _BLOCK)


def _fits(quantization: Quantization, stored: Tensors) -> bool:
    return quantization.method == "fp8" and any(
        name.endswith(_SCALE) and name.removesuffix(_SCALE) + _WEIGHT in stored for name in stored
    )


SCHEME = Scheme("FP4 and FP8 of DeepSeek V4", _fits, _logical)
