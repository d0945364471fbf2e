"""MXFP4 as OpenAI stores GPT-OSS's experts: `w_blocks` (..., R, C / 32, 16) and `w_scales` (..., R, C / 32).

Source: `convert_moe_packed_tensors` of transformers. It gives the weight with its last two axes swapped, and so do we.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import endings, of_weight, part
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.packed import RepackMxfp4
from gguf_forge.tensors.row_maps import reshaped, transposed

_BLOCKS, _SCALES = "_blocks", "_scales"


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    """The logical tensors. Blocks come first, because the reference's converter writes repacked tensors first."""
    stems = endings(stored, _BLOCKS)
    packed: dict[str, TensorExpr] = {}
    for stem in stems:
        blocks, scales = stored[stem + _BLOCKS], part(stored, stem, stem + _SCALES)
        with of_weight(stem):
            if len(blocks.shape) < 3:
                raise InputError(f"blocks of shape {blocks.shape} are not a matrix of blocks")
            merged = reshaped(blocks, (*blocks.shape[:-2], blocks.shape[-2] * blocks.shape[-1]))
            packed[stem] = transposed(RepackMxfp4(merged, scales))
    for stem in endings(stored, _SCALES):
        part(stored, stem, stem + _BLOCKS)
    used = {stem + suffix for stem in stems for suffix in (_BLOCKS, _SCALES)}
    return packed | {name: expr for name, expr in stored.items() if name not in used}


SCHEME = Scheme("MXFP4", lambda quantization, stored: quantization.method == "mxfp4", _logical)
