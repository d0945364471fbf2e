"""FP8 as in Meta's Llama 3.1 405B: `w` in e4m3 and `w_scale`, with one scale per row.

Source: transformers' FbgemmFp8Linear.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import scaled_in_place, without
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    return scaled_in_place(without(stored, (".input_scale_ub",)))


SCHEME = Scheme("FBGEMM FP8", lambda quantization, stored: quantization.method == "fbgemm_fp8", _logical)
