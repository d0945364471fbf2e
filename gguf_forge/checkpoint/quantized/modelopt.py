"""NVIDIA's ModelOpt: FP8 with one scale for a tensor or a row, NVFP4, or both in one model.

An entry of `quantized_layers` also counts for all modules inside the named one. Source: ModelOpt's exporter, and the
reference's converter.
"""

from __future__ import annotations

import re
from typing import Any

from gguf_forge.checkpoint.quantized.parts import endings, nvfp4, scaled, without
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.tensors.expression import TensorExpr

# Scales of the key-value cache. They are left out, because a GGUF file has no place for them.
_UNUSED = (".k_scale", ".v_scale")
# The algorithm with weights of 4 bits and activations of 16 bits.
_WIDE_INPUT = "W4A16_NVFP4"


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    found = dict(without(stored, _UNUSED))
    packed: dict[str, TensorExpr] = {}
    for stem in endings(stored, ".weight_scale"):
        name = f"{stem}.weight"
        scale = found.pop(f"{name}_scale")
        tensor_scale, input_scale = (found.pop(end, None) for end in (f"{name}_scale_2", f"{stem}.input_scale"))
        if name not in stored:
            continue
        codes = found[name]
        if str(codes.dtype) == "U8":
            del found[name]
            wide_input = _algorithm(stem, quantization) == _WIDE_INPUT
            packed[name] = nvfp4(name, codes, scale, tensor_scale, input_scale, wide_input=wide_input)
        else:
            found[name] = scaled(name, codes, scale, None)
    return {**packed, **without(found, (".input_scale",))}


def _algorithm(module: str, quantization: Quantization) -> Any:
    """The quantization of a module: from its own entry, that of the nearest module around it, or the whole model's."""
    layers = quantization.config.get("quantized_layers")
    module = re.sub(r"\.experts\.[0-9]+\.", ".experts.", module)
    while module and isinstance(layers, dict):
        said = layers.get(module)
        if isinstance(said, dict):
            return said.get("quant_algo")
        module = module.rpartition(".")[0]
    return quantization.config.get("quant_algo")


SCHEME = Scheme("ModelOpt", lambda quantization, stored: quantization.method == "modelopt", _logical)
