"""AMD's Quark: FP8 with `w_scale`, or MXFP4 packed under the weight's own name. Source: Quark's exporter."""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import mxfp4, scaled, scaled_in_place, without
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.tensors.expression import TensorExpr

_UNUSED = (".input_scale", ".output_scale", ".k_scale", ".v_scale")


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    return scaled_in_place(without(stored, _UNUSED), _weight)


def _weight(name: str, codes: TensorExpr, scale: TensorExpr) -> TensorExpr:
    return mxfp4(name, codes, scale) if str(codes.dtype) == "U8" else scaled(name, codes, scale, None)


SCHEME = Scheme("Quark", lambda quantization, stored: quantization.method == "quark", _logical)
