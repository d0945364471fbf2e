"""BitNet b1.58."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, f32, text
from gguf_forge.architectures.site import Site
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.ternary import Ternary
from gguf_forge.tokenizer import sentencepiece

_ROUNDED = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down", "ffn_gate")


def _ternary(site: Site, *sources: TensorExpr) -> TensorExpr:
    return Ternary(*sources)


bitnet = Architecture(
    "bitnet",
    hf=("BitnetForCausalLM", "BitNetForCausalLM"),
    metadata=(
        *DECODER,
        text("rope.scaling.type", lambda site: "linear"),
        f32("rope.scaling.factor", lambda site: 1.0),
    ),
    tokenizer=sentencepiece,
    operations={f"{role}.weight": _ternary for role in _ROUNDED},
    layer_tensors=lambda site: (*ATTENTION, "attn_sub_norm", "ffn_norm", "ffn_sub_norm", *GATED),
)
