"""The tensors of safetensors files as expressions."""

from __future__ import annotations

from gguf_forge.checkpoint.safetensors_file import StoredTensor
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Stored, StoredElements, Widened
from gguf_forge.types.element_type import ELEMENT_TYPES, ElementType
from gguf_forge.types.tensor_type import BF16, F16, F32

_FLOATS = {"F32": F32, "F16": F16, "BF16": BF16}
# Stored types that hold weights although GGUF has no such type.
_WIDENED = frozenset(("F64", "I8", "I16", "I32", "I64", "F8_E4M3", "F8_E5M2"))
# Those of them that are codes in a quantized checkpoint.
_CODES = frozenset(("I8", "F8_E4M3", "F8_E5M2"))


def as_stored(tensor: StoredTensor) -> Stored:
    """A stored tensor as an expression."""
    if tensor.dtype in _FLOATS:
        return Stored(tensor.name, tensor.source, tensor.offset, tensor.shape, _FLOATS[tensor.dtype])
    return StoredElements(tensor.name, tensor.source, tensor.offset, tensor.shape, ELEMENT_TYPES[tensor.dtype])


def widened(expr: TensorExpr, *, in_quantized: bool = False) -> TensorExpr:
    """A stored tensor of numbers that GGUF has no type for as float32; other tensors unchanged."""
    if not isinstance(expr.dtype, ElementType) or expr.dtype.name not in _WIDENED:
        return expr
    # In a quantized checkpoint, a matrix of bytes that no scheme took is one of codes without their scales.
    are_codes = in_quantized and expr.dtype.name in _CODES and len(expr.shape) > 1
    return expr if are_codes else Widened(expr)
