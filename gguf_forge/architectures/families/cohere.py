"""Cohere's Command R, and Command R7B with windows."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, f32, text, u32
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe


def _longest_context(site: Site) -> Config:
    """config.json says 8192 positions, and the models were trained on more."""
    longest = site.config.find("model_max_length", "max_position_embeddings")
    return site.config.updated(max_position_embeddings=longest)


_NO_SCALING = text("rope.scaling.type", lambda site: "none")

command_r = Architecture(
    "command-r",
    hf=("CohereForCausalLM",),
    metadata=(*DECODER, f32("logit_scale", "logit_scale"), _NO_SCALING),
    tokenizer=bpe,
    prepare=_longest_context,
    layer_tensors=lambda site: (*ATTENTION, *GATED),
)


def _rotated(site: Site) -> int:
    share = site.config.number("rotary_pct", default=1.0)
    return int(share * (site.config.integer("hidden_size") // site.config.integer("num_attention_heads")))


cohere2 = command_r.derive(
    "cohere2",
    hf=("Cohere2ForCausalLM",),
    metadata=(
        *DECODER,
        f32("logit_scale", "logit_scale"),
        u32("attention.sliding_window", "sliding_window"),
        u32("vocab_size", "vocab_size"),
        u32("rope.dimension_count", _rotated),
        _NO_SCALING,
    ),
    prepare=lambda site: site.config,
)
