"""OLMo 1 to 3, OLMoE, and Seed-OSS, which needs the same declaration."""

from __future__ import annotations

from gguf_forge.architectures.completeness import EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, f32, flag, per_layer, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, permute_rope
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe

_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")


def _key_heads(site: Site) -> int:
    key = "num_key_value_heads" if site.config.find("num_key_value_heads") is not None else "num_attention_heads"
    return site.config.integer(key)


olmo = Architecture(
    "olmo",
    hf=("OlmoForCausalLM", "OLMoForCausalLM"),
    metadata=(
        *DECODER,
        f32("attention.layer_norm_epsilon", lambda site: 1e-5),
        f32("attention.clamp_kqv", "clip_qkv"),
    ),
    tokenizer=bpe,
    operations={"attn_q": permute_rope("num_attention_heads"), "attn_k": permute_rope(_key_heads)},
    # its norms have no weights
    model_tensors=("token_embd",),
    layer_tensors=lambda site: (*_ATTENTION, *GATED),
)


def _slides(site: Site) -> bool:
    """Whether a layer attends within the window. By default all except every fourth do; the config may list it."""
    kinds = site.config.find("layer_types")
    layer = site.layer or 0
    if isinstance(kinds, list) and layer < len(kinds):
        return bool(kinds[layer] == "sliding_attention")
    return (layer + 1) % 4 != 0


def _sliding_pattern(site: Site) -> list[object] | None:
    return per_layer(_slides)(site) if "sliding_window" in site.config else None


olmo2 = Architecture(
    "olmo2",
    hf=("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
    metadata=(
        *DECODER,
        u32("attention.sliding_window", "sliding_window"),
        flag("attention.sliding_window_pattern", _sliding_pattern),
    ),
    tokenizer=bpe,
    layer_tensors=lambda site: (*_ATTENTION, "post_attention_norm", "post_ffw_norm", *GATED),
)

olmoe = Architecture(
    "olmoe",
    hf=("OlmoeForCausalLM",),
    metadata=(*DECODER, f32("attention.layer_norm_rms_epsilon", lambda site: 1e-5)),
    tokenizer=bpe,
    rules=MLP_EXPERTS,
    layer_tensors=lambda site: ("attn_norm", *_ATTENTION, "ffn_norm", *EXPERTS),
)

seed_oss = Architecture(
    "seed_oss",
    hf=("SeedOssForCausalLM",),
    metadata=DECODER,
    tokenizer=bpe,
    layer_tensors=lambda site: ("attn_norm", *_ATTENTION, *GATED),
)
