"""NVIDIA's ModelOpt: FP8 with one scale for a tensor or a row, NVFP4, or both in one model.

Source: ModelOpt's exporter, and the reference's converter. A scale of two dimensions is of NVFP4's blocks.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import endings, nvfp4, scaled, without
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.tensors.expression import TensorExpr

# Scales of the key-value cache, which a GGUF file has no place for.
_UNUSED = (".k_scale", ".v_scale")


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    found = dict(without(stored, _UNUSED))
    packed: dict[str, TensorExpr] = {}
    for stem in endings(stored, ".weight_scale"):
        name = f"{stem}.weight"
        scale = found.pop(f"{name}_scale")
        input_scale, tensor_scale = found.pop(f"{stem}.input_scale", None), found.pop(f"{name}_scale_2", None)
        if name not in stored:
            continue
        if len(scale.shape) < 2:
            found[name] = scaled(name, found[name], scale, None)
        else:
            packed[name] = nvfp4(name, found.pop(name), scale, tensor_scale, input_scale)
    return packed | found


SCHEME = Scheme("ModelOpt", lambda quantization, stored: quantization.method == "modelopt", _logical)
