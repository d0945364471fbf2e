"""AutoAWQ in its order `gemm`: `w.qweight`, `w.qzeros` and `w.scales`, all packed along the outputs.

Source: AutoAWQ's packing (`AWQ_ORDER`), whose inverse is below.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import endings, integers, of_weight, part, put_together
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.codes import RowCodes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import transposed

PARTS = (".qweight", ".qzeros", ".scales")
_BITS = 4
# For each of 8 neighbouring columns, the number of its code among the 8 codes of a word.
_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    version = str(quantization.config.get("version", "gemm")).lower()
    if version != "gemm" or quantization.config.get("bits", _BITS) != _BITS:
        raise UnsupportedError(
            f"AWQ of version {version:.20} with bits {quantization.config.get('bits')!r:.20} is not known",
            file="config.json",
            hint="known: version gemm with 4 bits",
        )
    return awq_weights(stored)


def awq_weights(stored: Tensors) -> Tensors:
    """All tensors. The parts of AWQ weights are combined into logical weights."""
    return put_together(stored, endings(stored, ".qweight"), PARTS, lambda stem: _weight(stem, stored))


def _weight(stem: str, stored: Tensors) -> TensorExpr:
    qweight, qzeros, scales = (part(stored, f"{stem}.weight", stem + end) for end in PARTS)
    with of_weight(f"{stem}.weight"):
        n_in, n_groups, n_out = qweight.shape[0], scales.shape[0], scales.shape[-1]
        if n_in % n_groups:
            raise InputError(f"{n_in} inputs are not {n_groups} groups of one size")
        codes, zeros = (transposed(RowCodes(integers(packed), _BITS, n_out, _ORDER)) for packed in (qweight, qzeros))
        return Scaled(codes, transposed(scales), 1, n_in // n_groups, zeros)


SCHEME = Scheme("AWQ", lambda quantization, stored: quantization.method == "awq", _logical)
