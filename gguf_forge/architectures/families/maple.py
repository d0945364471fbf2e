"""Maple: experts, and no rotation in the layers that see everything."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, SLIDING_PATTERN, f32, per_layer, u32
from gguf_forge.architectures.operations import MLP_EXPERTS
from gguf_forge.architectures.site import Site
from gguf_forge.errors import UnsupportedError
from gguf_forge.tokenizer import bpe

# The model limits the values of its experts' gates to this number, which its config lacks.
_CLAMP = 7.0
# Values that llama.cpp's Maple assumes: config key -> (the only value it supports, the default of a missing key).
_FIXED = {
    "hidden_act": ("silu", None),
    "num_shared_experts": (0, 0),
    "norm_topk_prob": (True, True),
    "nope_on_global_attention": (True, False),
}


def _checked(site: Site) -> Config:
    for key, (value, default) in _FIXED.items():
        if site.config.get(key, default) != value:
            raise UnsupportedError(f"{key} is not {value!r}, which llama.cpp takes for granted", file="config.json")
    return site.config


def _rotated(site: Site) -> int:
    return int(site.config.head_dim * site.config.rope_number("partial_rotary_factor", 1.0))


maple = Architecture(
    "maple",
    hf=("MapleForCausalLM",),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("rope.dimension_count", _rotated),
        u32("attention.sliding_window", "sliding_window"),
        SLIDING_PATTERN,
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        f32("swiglu_clamp_exp", per_layer(lambda site: _CLAMP)),
    ),
    tokenizer=bpe,
    rules=MLP_EXPERTS,
    prepare=_checked,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *EXPERTS),
)
