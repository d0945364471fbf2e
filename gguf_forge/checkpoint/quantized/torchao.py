"""torchao in safetensors: a tensor `w.weight` as `w._weight_qdata`, `w._weight_scale` and `w._weight_zero_point`.

The sizes of groups follow from the shapes of the parts. Source: torchao's `flatten_tensor_state_dict`, and the
`dequantize` of Int8Tensor, Float8Tensor and IntxUnpackedToInt8Tensor.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import endings, of_weight, part, put_together
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr

_CODES, _SCALE, _ZERO = (f"._weight_{part}" for part in ("qdata", "scale", "zero_point"))
_KNOWN = ("I8", "F8_E4M3", "F8_E5M2")


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    return put_together(stored, endings(stored, _CODES), (_CODES, _SCALE, _ZERO), lambda stem: _weight(stem, stored))


def _weight(stem: str, stored: Tensors) -> TensorExpr:
    name = f"{stem}.weight"
    codes, scale = stored[stem + _CODES], part(stored, name, stem + _SCALE)
    if str(codes.dtype) not in _KNOWN:
        raise UnsupportedError(
            f"torchao's codes of type {codes.dtype} are not known",
            tensor=name,
            hint=f"known: {', '.join(_KNOWN)}",
        )
    with of_weight(name):
        if len(scale.shape) != 2 or codes.shape[-1] % scale.shape[-1]:
            raise InputError(f"scales of shape {scale.shape} do not fit codes of shape {codes.shape}")
        zeros = stored.get(stem + _ZERO, 0)
        rows = codes.shape[0] if scale.shape[0] == 1 else 1
        return Scaled(codes, scale, rows, codes.shape[-1] // scale.shape[-1], zeros)


SCHEME = Scheme("torchao", lambda quantization, stored: quantization.method == "torchao", _logical)
