"""GPTQ: `w.qweight`, `w.qzeros`, `w.scales` and `w.g_idx` stand for `w.weight`.

Source: GPTQModel, and the reference's converter. Both versions of the format are read: the first one (`gptq`) stores
zero points less one.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.dequantized import GptqColumns
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import transposed

_PARTS = (".qweight", ".qzeros", ".scales")
_GROUPS = ".g_idx"
_BITS = (2, 3, 4, 8)


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    """Weights come after all other tensors, as the reference's converter visits what it puts together."""
    bits = quantization.config.get("bits")
    if bits not in _BITS:
        raise UnsupportedError(f"GPTQ with bits {bits!r:.20} is not known", hint=f"known: {_BITS}", file="config.json")
    offset = 1 if quantization.config.get("checkpoint_format", "gptq") == "gptq" else 0
    stems = [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]
    used = {stem + part for stem in stems for part in (*_PARTS, _GROUPS)}
    weights = {f"{stem}.weight": _weight(stem, stored, int(bits), offset) for stem in stems}
    return {name: expr for name, expr in stored.items() if name not in used} | weights


def _weight(stem: str, stored: Tensors, bits: int, offset: int) -> TensorExpr:
    missing = [part for part in _PARTS if stem + part not in stored]
    if missing:
        raise InputError(f"lacks {', '.join(missing)}", tensor=stem, hint="is a shard missing?")
    qweight, qzeros, scales = (stored[stem + part] for part in _PARTS)
    try:
        return transposed(GptqColumns(qweight, qzeros, scales, stored.get(stem + _GROUPS), bits, offset))
    except InputError as error:
        raise InputError(error.problem, tensor=stem) from None


SCHEME = Scheme("GPTQ", lambda quantization, stored: quantization.method == "gptq", _logical)
