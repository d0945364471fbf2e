"""Snowflake's Arctic: every layer has a dense feed-forward part and experts next to it."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.architectures.operations import NUMBERED, experts, permute_rope
from gguf_forge.architectures.shapes import DECODER_SHAPES, heads, hidden, key_heads
from gguf_forge.tokenizer import arctic as arctic_vocabulary

arctic = Architecture(
    "arctic",
    hf=("ArcticForCausalLM",),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("rope.dimension_count", lambda site: hidden(site) // heads(site)),
    ),
    tokenizer=arctic_vocabulary,
    rules=experts("model.layers.{i}.block_sparse_moe.experts.{e}", *NUMBERED),
    operations={"attn_q": permute_rope(heads), "attn_k": permute_rope(key_heads)},
    # The dense part is as wide as the model. The experts have a width of their own.
    shapes={**DECODER_SHAPES, **{f"ffn_{name}": (hidden, hidden) for name in ("gate", "up", "down")}},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", "ffn_norm_exps", *GATED, *EXPERTS),
)
