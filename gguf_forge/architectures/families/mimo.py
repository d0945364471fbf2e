"""MiMo V2: attention within windows and without, sinks, experts, and three layers that predict further tokens."""

from __future__ import annotations

from typing import Any

from gguf_forge.architectures.appended_layers import (
    CHOICES,
    LEFT_OUT_LAYERS,
    NEXTN,
    NEXTN_NAMES,
    is_appended,
    is_left_out,
)
from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, f32, u32
from gguf_forge.architectures.operations import experts
from gguf_forge.architectures.renames import WRAPPERS, Appended, ends
from gguf_forge.architectures.shapes import DECODER_SHAPES
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tokenizer import bpe

# The released models all have so many, and their configs do not say so.
_PREDICTING = 3


def _predicting(site: Site) -> int:
    return 0 if "no_mtp" in site.choices else _PREDICTING


def _slides(site: Site) -> list[int]:
    """1 for each layer that attends within the window: those for further tokens do."""
    pattern, own = site.config.find("hybrid_layer_pattern"), site.config.block_count
    if not isinstance(pattern, list) or len(pattern) != own:
        raise InputError(f"hybrid_layer_pattern is not a list of {own} layers", file="config.json")
    return [*pattern, *[1] * _predicting(site)]


def _key_heads(site: Site) -> list[int]:
    for key in ("head_dim", "num_attention_heads", "v_head_dim"):
        if site.config.find(f"swa_{key}") != site.config.find(key):
            raise UnsupportedError(f"swa_{key} is not {key}, which llama.cpp does not know", file="config.json")
    full, sliding = site.config.integer("num_key_value_heads"), site.config.integer("swa_num_key_value_heads")
    return [sliding if slides == 1 else full for slides in _slides(site)]


def _rotated(site: Site) -> int:
    return int(site.config.head_dim * site.config.rope_number("partial_rotary_factor"))


def _has_experts(site: Site) -> bool:
    """Which layers have experts: `moe_layer_freq` has a 1 for each."""
    listed, layer = site.config.find("moe_layer_freq"), site.layer or 0
    if isinstance(listed, list) and layer < len(listed):
        return bool(listed[layer] == 1)
    return not is_appended(site)


def _layer(site: Site) -> tuple[str, ...]:
    if is_left_out(site):
        return ()
    feed_forward = EXPERTS if _has_experts(site) else GATED
    return (*ATTENTION, "ffn_norm", *feed_forward, *(NEXTN if is_appended(site) else ()))


def _epsilon(site: Site) -> Any:
    return site.config.get("layernorm_epsilon", 1e-5)


mimo2 = Architecture(
    "mimo2",
    hf=("MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"),
    metadata=(
        *DECODER,
        u32("attention.head_count_kv", _key_heads),
        u32("attention.sliding_window", "sliding_window"),
        u32("attention.sliding_window_pattern", _slides),
        u32("attention.value_length", "v_head_dim"),
        u32("expert_count", "n_routed_experts"),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("rope.dimension_count", _rotated),
        f32("attention.layer_norm_rms_epsilon", _epsilon),
        f32("attention.value_scale", "attention_value_scale"),
        u32("nextn_predict_layers", lambda site: _predicting(site) or None),
    ),
    tokenizer=bpe,
    renames=(
        *WRAPPERS,
        Appended("model.mtp.layers.{i}."),
        ends("attention_sink_bias", "attention_sink_bias.weight"),
    ),
    rules=experts(
        "model.layers.{i}.mlp.experts.{e}",
        ("gate_proj", "ffn_gate_exps"),
        ("up_proj", "ffn_up_exps"),
        ("down_proj", "ffn_down_exps"),
    ),
    hf_names=("model.layers.{i}.self_attn.attention_sink_bias", *NEXTN_NAMES),
    drops=(LEFT_OUT_LAYERS,),
    choices=CHOICES,
    block_count=lambda site: site.config.block_count + _predicting(site),
    # key/value heads differ from layer to layer, and values from keys
    shapes={role: sizes for role, sizes in DECODER_SHAPES.items() if not role.startswith("attn_")},
    layer_tensors=_layer,
)
