"""SmallThinker, whose routers look at what comes into a layer."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.architectures.operations import experts
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe


def _gating(site: Site) -> int:
    return 1 if site.config.find("moe_primary_router_apply_softmax") else 2


def _window(site: Site) -> object:
    layout = site.config.find("sliding_window_layout")
    slides = isinstance(layout, list) and any(layer != 0 for layer in layout)
    return site.config.find("sliding_window_size") or None if slides else None


smallthinker = Architecture(
    "smallthinker",
    hf=("SmallThinkerForCausalLM",),
    metadata=(
        *DECODER,
        u32("expert_count", "moe_num_primary_experts"),
        u32("expert_used_count", "moe_num_active_primary_experts"),
        u32("expert_feed_forward_length", "moe_ffn_hidden_size"),
        u32("feed_forward_length", "moe_ffn_hidden_size"),
        u32("expert_gating_func", _gating),
        u32("attention.sliding_window", _window),
    ),
    tokenizer=bpe,
    rules=experts(
        "model.layers.{i}.block_sparse_moe.experts.{e}",
        ("down", "ffn_down_exps"),
        ("gate", "ffn_gate_exps"),
        ("up", "ffn_up_exps"),
    ),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *EXPERTS),
)
