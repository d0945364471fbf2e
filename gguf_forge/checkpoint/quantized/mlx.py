"""MLX: `w.weight` as words of packed codes, `w.scales` and, for affine codes, `w.biases`.

The codes of a row are a stream of bits. In the modes mxfp4, mxfp8 and nvfp4, codes and scales are small floats. Source:
mlx's `mx.quantize`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gguf_forge.checkpoint.quantized.parts import E2M1, bits_as, endings, integers, mxfp4, of_weight
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.codes import Lookup, RowCodes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.element_type import ELEMENT_TYPES

_PARTS = (".scales", ".biases")
_BITS = (2, 3, 4, 5, 6, 8)
_E4M3 = Constant(np.arange(256, dtype=np.uint8).view(ELEMENT_TYPES["F8_E4M3"].dtype).astype(np.float32))
# The modes of small floats -> bits of a code, values of the codes, type of the scales, size of a group.
_FLOATS = {"mxfp8": (8, _E4M3, "F8_E8M0", 32), "nvfp4": (4, E2M1, "F8_E4M3", 16)}
_MODES = ("affine", "mxfp4", *_FLOATS)


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    found = dict(stored)
    for stem in endings(stored, ".scales"):
        name = f"{stem}.weight"
        if name in stored:
            found[name] = _weight(stem, stored, quantization)
            for end in _PARTS:
                found.pop(stem + end, None)
    return found


def _weight(stem: str, stored: Tensors, quantization: Quantization) -> TensorExpr:
    name = f"{stem}.weight"
    words, scales, own = stored[name], stored[f"{stem}.scales"], quantization.config.get(stem)
    settings = {**quantization.config, **(own if isinstance(own, dict) else {})}
    mode = settings.get("mode", "affine")
    if mode not in _MODES:
        raise UnsupportedError(f"MLX's mode {mode!r:.20} is not known", tensor=name, hint=f"known: {', '.join(_MODES)}")
    if mode == "mxfp4":
        return mxfp4(name, words, scales)
    with of_weight(name):
        words = integers(words)
        if mode in _FLOATS:
            bits, levels, kind, group = _FLOATS[mode]
            codes = RowCodes(words, bits, words.shape[-1] * words.dtype.row_bytes(1) * 8 // bits)
            return Scaled(Lookup(codes, levels), bits_as(scales, kind), 1, group, kind=mode.upper())
        if f"{stem}.biases" not in stored:
            raise InputError("its part biases is missing")
        bits, group = _setting(settings, "bits"), _setting(settings, "group_size")
        if bits not in _BITS or words.dtype.row_bytes(1) != 4:
            raise InputError(f"codes of {bits} bits in numbers of type {words.dtype} are not known")
        codes = RowCodes(words, bits, words.shape[-1] * 32 // bits)
        return Scaled(codes, scales, 1, group, shifts=stored[f"{stem}.biases"])


def _setting(settings: Mapping[str, Any], key: str) -> int:
    value = settings.get(key)
    if type(value) is not int or value < 1:
        raise InputError(f"{key} is {value!r:.20}, not a whole number")
    return value


SCHEME = Scheme("MLX", lambda quantization, stored: quantization.method == "mlx", _logical)
