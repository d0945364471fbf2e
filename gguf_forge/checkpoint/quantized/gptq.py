"""GPTQ: `w.qweight`, `w.qzeros`, `w.scales` and `w.g_idx` stand for `w.weight`.

A weight is stored transposed: codes (in, out) packed along `in`, zero points (groups, out) packed along `out`. Both
versions of the format are read. The first one (`gptq`) stores zero points minus one. The number of bits may differ from
module to module, so we compute it from the shapes of each weight. Source: GPTQModel, and the reference's converter.
"""

from __future__ import annotations

from typing import Any

from gguf_forge.checkpoint.quantized.parts import endings, integers, of_weight, part, put_together
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


def gptq_weights(stored: Tensors, quantization: Quantization, offset: int, known: tuple[int, ...] = _BITS) -> Tensors:
    """All tensors. The parts of GPTQ weights are combined into logical weights.

    Args:
        stored: All tensors.
        quantization: The config's description of the quantization.
        offset: The number that is added to stored zero points.
        known: The numbers of bits that a code may have.
    """
    size: Any = quantization.config.get("group_size")

    def weight(stem: str) -> TensorExpr:
        qweight, qzeros, scales = (part(stored, f"{stem}.weight", stem + end) for end in _PARTS)
        if quantization.config.get("desc_act") is True:  # columns that were moved need to be known
            part(stored, f"{stem}.weight", stem + _GROUPS)
        with of_weight(f"{stem}.weight"):
            return gptq_weight(qweight, qzeros, scales, stored.get(stem + _GROUPS), size, offset, known)

    return put_together(stored, endings(stored, ".qweight"), (*_PARTS, _GROUPS), weight)


def gptq_weight(
    qweight: TensorExpr,
    qzeros: TensorExpr,
    scales: TensorExpr,
    groups: TensorExpr | None,
    size: Any,
    offset: int,
    known: tuple[int, ...] = _BITS,
) -> TensorExpr:
    """A weight: (codes - zero points) * scales.

    Args:
        qweight: int32 (in * bits / 32, out).
        qzeros: int32 (groups, out * bits / 32).
        scales: (groups, out).
        groups: int32 (in): the group of each input; None for consecutive groups of equal size.
        size: The number of inputs of a group in the config. If it does not fit, it is computed from the shapes.
        offset: The number that is added to stored zero points, without overflow.
        known: The numbers of bits that a code may have.

    Raises:
        InputError: the shapes do not fit together.
        UnsupportedError: the codes have an unknown number of bits.
    """
    n_groups, n_out = scales.shape if len(scales.shape) == 2 else (0, 0)
    if not n_groups or len(qzeros.shape) != 2 or qzeros.shape[0] != n_groups or qzeros.shape[1] * 32 % n_out:
        raise InputError(f"scales {scales.shape} and zero points {qzeros.shape} do not fit")
    bits = qzeros.shape[1] * 32 // n_out
    qweight, qzeros = integers(qweight), integers(qzeros)
    if bits not in known:
        raise UnsupportedError(f"GPTQ with {bits} bits is not known", hint=f"known: {known}")
    n_in = qweight.shape[0] * 32 // bits
    codes, scales = transposed(ColumnCodes(qweight, bits, n_in)), transposed(scales)
    zeros = transposed(Add(RowCodes(qzeros, bits, n_out), offset))
    if groups is None:
        told = type(size) is int and size > 0 and -(-n_in // size) == n_groups
        return Scaled(codes, scales, 1, size if told else -(-n_in // n_groups), zeros)
    if groups.shape != (n_in,):
        raise InputError(f"g_idx has shape {groups.shape}, and there are {n_in} inputs")
    return Scaled(codes, Gathered(scales, groups), 1, 1, Gathered(zeros, groups))


SCHEME = Scheme("GPTQ", lambda quantization, stored: quantization.method == "gptq", _logical)
