"""GroveMoE: each group of two experts has a smaller expert in addition."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import DECODER, f32, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, experts
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe

# These numbers are in the models' code and not in their configs.
_GROUP_SIZE, _GROUP_SCALE = 2, 0.05

_GROUP_EXPERTS = experts(
    "model.layers.{i}.mlp.chunk_experts.{e}",
    ("down_proj", "ffn_down_chexps"),
    ("gate_proj", "ffn_gate_chexps"),
    ("up_proj", "ffn_up_chexps"),
)


def _groups(site: Site) -> int:
    return site.config.expert_count // _GROUP_SIZE


grovemoe = Architecture(
    "grovemoe",
    hf=("GroveMoeForCausalLM", "modeling_grove_moe.GroveMoeForCausalLM"),
    metadata=(
        *DECODER,
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("expert_chunk_feed_forward_length", lambda site: site.config.find("head_dim") or 128),
        u32("experts_per_group", lambda site: _GROUP_SIZE),
        f32("expert_group_scale", lambda site: _GROUP_SCALE),
    ),
    tokenizer=bpe,
    rules=(*MLP_EXPERTS, *(replace(rule, after="groups", count=_groups) for rule in _GROUP_EXPERTS)),
    # The models' code does not use this tensor.
    drops=tuple(Drop(f"model.layers.{{i}}.{name}.expert_bias") for name in ("mlp", "mlp.gate")),
    layer_tensors=lambda site: (
        *(*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm", *EXPERTS),
        *("ffn_gate_chexps", "ffn_up_chexps", "ffn_down_chexps"),
    ),
)
