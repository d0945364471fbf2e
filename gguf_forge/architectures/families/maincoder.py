"""Maincoder: a dense decoder whose queries and keys have norms."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.tokenizer import bpe

maincoder = Architecture(
    "maincoder",
    hf=("MaincoderForCausalLM",),
    metadata=(*DECODER, u32("rope.dimension_count", "head_dim")),
    tokenizer=bpe,
    layer_tensors=lambda site: (*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm", *GATED),
)
