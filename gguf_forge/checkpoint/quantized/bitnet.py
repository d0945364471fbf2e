"""BitNet b1.58: -1, 0 and 1 in two bits, four rows of the weight in one stored row, and `w_scale`, which divides.

Source: transformers' BitLinear. Its AutoBitLinear (`linear_class`) multiplies by the scale instead. The reference's
converter always divides.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import integers, of_weight, scaled, scaled_in_place
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.tensors.arithmetic import Reciprocal
from gguf_forge.tensors.codes import RowPlanes
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Widened


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    multiplies = quantization.config.get("linear_class") == "autobitlinear" and not quantization.as_reference

    def weight(name: str, packed: TensorExpr, scale: TensorExpr) -> TensorExpr:
        factor: TensorExpr = Widened(scale)
        with of_weight(name):
            codes = RowPlanes(integers(packed), 2, (0, 1, 2, 3))
        return scaled(name, codes, factor if multiplies else Reciprocal(factor), None, zeros=1)

    return scaled_in_place(stored, weight)


SCHEME = Scheme("BitNet", lambda quantization, stored: quantization.method == "bitnet", _logical)
