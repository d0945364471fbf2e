"""Spark 2.5: a gate for each head, and two ways of rotation."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import GATED
from gguf_forge.architectures.config import positive
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, SLIDING_PATTERN, u32
from gguf_forge.architectures.shapes import DECODER_SHAPES, heads, hidden
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe


def _rotated(kind: str) -> Callable[[Site], int]:
    """The number of values of a head that are rotated in layers of one kind."""

    def count(site: Site) -> int:
        of_kind = site.config.part("rope_parameters").part(kind)
        factor = positive(of_kind.get("partial_rotary_factor"), f"partial_rotary_factor of {kind}", None)
        return int(site.config.integer("head_dim") * factor)

    return count


spark25 = Architecture(
    "spark2_5",
    hf=("Spark2_5ForCausalLM",),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("attention.sliding_window", "sliding_window"),
        SLIDING_PATTERN,
        u32("rope.dimension_count", _rotated("full_attention")),
        u32("rope.dimension_count_swa", _rotated("sliding_attention")),
    ),
    tokenizer=bpe,
    names={"model.layers.{i}.self_attn.q_k_v_proj": "blk.{i}.attn_qkv"},
    shapes={**DECODER_SHAPES, "attn_gate": (heads, hidden)},
    layer_tensors=lambda site: ("attn_norm", "attn_qkv", "attn_gate", "attn_output", "ffn_norm", *GATED),
)
