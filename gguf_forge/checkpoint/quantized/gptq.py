"""GPTQ: `w.qweight`, `w.qzeros`, `w.scales` and `w.g_idx` stand for `w.weight`.

A weight is stored transposed: codes (in, out) packed along `in`, zero points (groups, out) packed along `out`. Source:
GPTQModel, and the reference's converter. Both versions of the format are read: the first one (`gptq`) stores zero
points less one. The bits of each weight are told by its shapes, for they may differ from module to module.
"""

from __future__ import annotations

from typing import Any

from gguf_forge.checkpoint.quantized.parts import endings, of_weight, part, put_together
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.arithmetic import Add
from gguf_forge.tensors.codes import ColumnCodes, Gathered, RowCodes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import transposed

_PARTS = (".qweight", ".qzeros", ".scales")
_GROUPS = ".g_idx"
_BITS = (2, 3, 4, 8)


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    offset = 1 if quantization.config.get("checkpoint_format", "gptq") == "gptq" else 0
    return gptq_weights(stored, quantization, offset)


def gptq_weights(stored: Tensors, quantization: Quantization, offset: int) -> Tensors:
    """All tensors, with GPTQ's parts put together.

    Args:
        stored: All tensors.
        quantization: What the config says.
        offset: What is added to stored zero points.
    """
    size: Any = quantization.config.get("group_size")

    def weight(stem: str) -> TensorExpr:
        qweight, qzeros, scales = (part(stored, f"{stem}.weight", stem + end) for end in _PARTS)
        with of_weight(f"{stem}.weight"):
            return gptq_weight(qweight, qzeros, scales, stored.get(stem + _GROUPS), size, offset)

    return put_together(stored, endings(stored, ".qweight"), (*_PARTS, _GROUPS), weight)


def gptq_weight(
    qweight: TensorExpr, qzeros: TensorExpr, scales: TensorExpr, groups: TensorExpr | None, size: Any, offset: int
) -> TensorExpr:
    """A weight: its codes less their zero points, times their scales.

    Args:
        qweight: int32 (in * bits / 32, out).
        qzeros: int32 (groups, out * bits / 32).
        scales: (groups, out).
        groups: int32 (in): the group of each input; None for groups of one size, one after the other.
        size: The inputs of a group, as the config says; where it does not fit, the shapes tell it.
        offset: What is added to stored zero points, without wrapping.

    Raises:
        InputError: the shapes do not fit.
        UnsupportedError: the codes have a number of bits that is not known.
    """
    n_groups, n_out = scales.shape if len(scales.shape) == 2 else (0, 0)
    if not n_groups or len(qzeros.shape) != 2 or qzeros.shape[0] != n_groups or qzeros.shape[1] * 32 % n_out:
        raise InputError(f"scales {scales.shape} and zero points {qzeros.shape} do not fit")
    bits = qzeros.shape[1] * 32 // n_out
    if bits not in _BITS:
        raise UnsupportedError(f"GPTQ with {bits} bits is not known", hint=f"known: {_BITS}")
    n_in = qweight.shape[0] * 32 // bits
    codes = ColumnCodes(qweight, bits, n_in)
    zeros = Add(RowCodes(qzeros, bits, n_out), offset)
    if groups is None:
        told = type(size) is int and size > 0 and -(-n_in // size) == n_groups
        return transposed(Scaled(codes, scales, size if told else -(-n_in // n_groups), 1, zeros))
    if groups.shape != (n_in,):
        raise InputError(f"g_idx has shape {groups.shape}, and there are {n_in} inputs")
    return transposed(Scaled(codes, Gathered(scales, groups, -2), 1, 1, Gathered(zeros, groups, -2)))


SCHEME = Scheme("GPTQ", lambda quantization, stored: quantization.method == "gptq", _logical)
