"""EETQ: int8 codes whose bytes are in the order that CUTLASS kernels read, and `w_scales`, with one scale per output.

Source: EETQ's `preprocess_weights_for_mixed_gemm` for compute capability 7.5 to 8.9, undone step by step.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import bits_as, endings, matrix, of_weight, part, scaled, viewed
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import Reorder, reshaped

_TILE = 64
_BIAS = 128


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    found = dict(stored)
    for stem in endings(stored, ".weight_scales"):
        name = f"{stem}.weight"
        scales = found.pop(f"{name}_scales")
        with of_weight(name):
            codes = _codes(part(stored, f"{name}_scales", name))
        found[name] = scaled(name, codes, scales, None, zeros=_BIAS)
    return found


def _codes(shuffled: TensorExpr) -> TensorExpr:
    """The codes plus 128 as (out, in), from the stored (in, out)."""
    n_in, n_out = matrix(shuffled).shape
    if n_in % _TILE or n_out % 2:
        raise InputError(f"{n_in} x {n_out} codes are no whole number of tiles of {_TILE} x 2")
    tiles = n_in // _TILE
    # Tiles of two rows of the weight alternate.
    rows: TensorExpr = viewed(bits_as(shuffled, "U8"), (n_out * tiles, _TILE))
    rows = reshaped(Reorder(rows, -2, (n_out // 2, tiles, 2), (0, 2, 1)), (n_out, n_in))
    rows = Reorder(rows, -1, (n_in // 4, 2, 2), (0, 2, 1))
    return Reorder(rows, -1, (n_in // 16, 4, 2, 2), (0, 2, 1, 3))


SCHEME = Scheme("EETQ", lambda quantization, stored: quantization.method == "eetq", _logical)
