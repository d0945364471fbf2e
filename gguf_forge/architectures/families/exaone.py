"""EXAONE 3, 4 and 4.5, and K-EXAONE with experts."""

from __future__ import annotations

from gguf_forge.architectures.appended_layers import (
    MTP_NAMES,
    NEXTN,
    SOME_NEXTN,
    counted_layers,
    is_appended,
    with_counted_layers,
)
from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.families.llama import llama3_rope_factors
from gguf_forge.architectures.metadata import DECODER, f32, flag, text, u32
from gguf_forge.architectures.operations import MLP_EXPERTS
from gguf_forge.architectures.renames import WRAPPERS
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe


def _rotated(site: Site) -> int:
    width = site.config.integer("hidden_size") // site.config.integer("num_attention_heads")
    return int(site.config.rope_number("partial_rotary_factor", 1.0) * width)


def _with_epsilon(site: Site) -> Config:
    """The epsilon under the RMS norm's key, which llama.cpp requires. EXAONE 3's config has it under another key."""
    if site.config.find("rms_norm_eps") is not None:
        return site.config
    return site.config.updated(rms_norm_eps=site.config.find("layer_norm_epsilon"))


exaone = Architecture(
    "exaone",
    hf=("ExaoneForCausalLM",),
    metadata=(*DECODER, u32("rope.dimension_count", _rotated)),
    tokenizer=bpe,
    prepare=_with_epsilon,
    generated=llama3_rope_factors,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)


def _window(site: Site) -> object:
    return site.config.find("sliding_window")


def _slides(site: Site) -> list[bool] | None:
    """For each layer, whether it attends within the window.

    The config has a list, a repeated word such as LLLG, or the period of the layers with full attention.
    """
    if _window(site) is None:
        return None
    layers = range(site.config.block_count)
    if "layer_types" in site.config:
        return [kind == "sliding_attention" for kind in site.config.listed("layer_types")]
    pattern = site.config.find("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:
        return [pattern[layer % len(pattern)] == "L" for layer in layers]
    if isinstance(pattern, int) and pattern > 0:
        return [(layer + 1) % pattern != 0 for layer in layers]
    return None


_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm", "post_attention_norm")

exaone4 = Architecture(
    "exaone4",
    hf=("Exaone4ForCausalLM",),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("attention.sliding_window", _window),
        flag("attention.sliding_window_pattern", _slides),
    ),
    tokenizer=bpe,
    renames=(*WRAPPERS, *MTP_NAMES),
    generated=llama3_rope_factors,
    layer_tensors=lambda site: (*_ATTENTION, *GATED, "post_ffw_norm"),
)

exaone45 = exaone4.derive(
    "exaone4",
    hf=("Exaone4_5_ForConditionalGeneration",),
    metadata=(*exaone4.metadata, SOME_NEXTN),
    block_count=with_counted_layers,
    layer_tensors=lambda site: (*_ATTENTION, *GATED, "post_ffw_norm", *(NEXTN if is_appended(site) else ())),
)


def _dense_layers(site: Site) -> int:
    keys = ("first_k_dense_replace", "first_last_k_dense_replace")
    return site.config.integer(*keys, minimum=0) if any(key in site.config for key in keys) else 0


def _shared_length(site: Site) -> int:
    return site.config.integer("moe_intermediate_size") * site.config.integer("num_shared_experts", minimum=0)


def _layer(site: Site) -> tuple[str, ...]:
    extra = is_appended(site)
    dense = extra or (site.layer or 0) < _dense_layers(site)
    return (
        *ATTENTION,
        "attn_q_norm",
        "attn_k_norm",
        "ffn_norm",
        *(GATED if dense else EXPERTS),
        *(NEXTN if extra else ()),
    )


exaone_moe = exaone4.derive(
    "exaone-moe",
    hf=("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"),
    metadata=(
        *exaone4.metadata,
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("expert_shared_count", "num_shared_experts"),
        u32("expert_shared_feed_forward_length", _shared_length),
        f32("expert_weights_scale", "routed_scaling_factor"),
        flag("expert_weights_norm", "norm_topk_prob"),
        u32("leading_dense_block_count", _dense_layers),
        u32("nextn_predict_layers", counted_layers),
        text("rope.scaling.type", lambda site: "none"),
    ),
    rules=MLP_EXPERTS,
    block_count=with_counted_layers,
    layer_tensors=_layer,
)
