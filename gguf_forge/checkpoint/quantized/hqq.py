"""HQQ: groups of codes as a matrix `w.W_q`. Each group has a `w.scale` and a `w.zero`, which is a fraction.

Codes are packed in planes: a stored row holds one row of each part of the matrix. Source: HQQ's `BitPack` and
`Quantizer.dequantize`.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import endings, matrix, numbers_of, of_weight, part, shape_of
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.codes import U8, RowPlanes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import RowRange, reshaped
from gguf_forge.tensors.stored import Stored, StoredElements, Widened

# The packing -> the bits of a code, and the position of each part's code in a stored number.
_PACKINGS = {
    "8bit_u8": (8, (0,)),
    "4bit_u8": (4, (1, 0)),
    "2bit_u8": (2, (3, 2, 1, 0)),
    "1bit_u8": (1, (7, 6, 5, 4, 3, 2, 1, 0)),
    "3bit_32": (3, (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)),
}
_KEPT = (".bias",)


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    stems = endings(stored, ".W_q")
    weights = {f"{stem}.weight": _weight(stem, stored) for stem in stems}
    parts = tuple(f"{stem}." for stem in stems)
    rest = {n: expr for n, expr in stored.items() if n.endswith(_KEPT) or not n.startswith(parts)}
    return rest | weights


def _weight(stem: str, stored: Tensors) -> TensorExpr:
    name = f"{stem}.weight"
    packed, scale, zero, shape, axis, packing = (
        part(stored, name, f"{stem}.{word}") for word in ("W_q", "scale", "zero", "shape", "axis", "packing")
    )
    with of_weight(name):
        rows, columns = shape_of(shape)
        along = int(numbers_of(axis)[0])
        kind = numbers_of(packing).tobytes().decode("latin-1")
        if kind not in _PACKINGS or along not in (0, 1):
            raise UnsupportedError(
                f"HQQ's packing {kind[:20]!r} along axis {along} is not known",
                tensor=name,
                hint=f"known: {[*_PACKINGS]}",
            )
        codes: TensorExpr = RowPlanes(_as_whole_numbers(packed, kind), *_PACKINGS[kind])
        n_groups = matrix(scale).shape[1 - along]
        group = rows * columns // max(1, n_groups)
        height = n_groups if along else group
        if height < codes.shape[0] < height + len(_PACKINGS[kind][1]):  # The excess rows only fill the last words.
            codes = RowRange(codes, 0, height)
        if codes.n_rows * codes.shape[-1] != rows * columns:
            raise InputError(f"codes of shape {codes.shape} are not {rows} x {columns} weights")
        block = (1, group) if along else (group, 1)
        return reshaped(
            Scaled(codes, scale, *block, Widened(zero), kind=f"{_PACKINGS[kind][0]} bit, g{group}"), (rows, columns)
        )


def _as_whole_numbers(packed: TensorExpr, kind: str) -> TensorExpr:
    """Packed codes as integers. They may be stored with a float type and the same bytes."""
    if kind.endswith("u8") and isinstance(packed, Stored):
        shape = (*packed.shape[:-1], packed.row_bytes)
        return StoredElements(packed.name, packed.source, packed.offset, shape, U8)
    return packed


SCHEME = Scheme("HQQ", lambda quantization, stored: quantization.method == "hqq", _logical)
