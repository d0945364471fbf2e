"""Gemma 4's DSpark drafts: DFlash with those layers of Gemma 4 that have full attention."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from gguf_forge.architectures.completeness import GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.families.dflash import dflash, has_confidence_head, mask_token, target_vocabulary
from gguf_forge.architectures.families.gemma4 import rope_factors
from gguf_forge.architectures.metadata import f32, flag, text, u32
from gguf_forge.architectures.renames import WRAPPERS, starts
from gguf_forge.architectures.shapes import DECODER_SHAPES, heads, hidden
from gguf_forge.architectures.site import Site
from gguf_forge.errors import UnsupportedError
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer import TokenizerSource, in_order

_ACTIVATION = "gelu_pytorch_tanh"
_DEFAULT_ROPE = {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0}


def _setting(config: Mapping[str, object], key: str, default: object = None) -> object:
    """A value from the draft model's part of the config, or else from the whole config."""
    own = config.get("dflash_config")
    return own[key] if isinstance(own, dict) and key in own else config.get(key, default)


def _checked(site: Site) -> Config:
    """The config with the rotary parameters of layers with full attention, because all layers have it.

    Raises:
        UnsupportedError: the draft has a part that llama.cpp does not know.
    """
    config = site.config
    known = {
        "attention_k_eq_v is not set": bool(config.find("attention_k_eq_v")),
        "not all layers are full_attention": config.find("layer_types") == ["full_attention"] * config.block_count,
        f"hidden_activation is not {_ACTIVATION}": config.get("hidden_activation", _ACTIVATION) == _ACTIVATION,
        "attention has a bias": not config.find("attention_bias"),
        "there are experts": not config.find("enable_moe_block"),
        "the draft has a vocabulary of its own": config.find("draft_vocab_size") in (None, 0, config["vocab_size"]),
        "the Markov head is not vanilla": _setting(config, "markov_head_type", "vanilla") == "vanilla",
        "logits are capped": not config.find("final_logit_softcapping"),
        "target_layer_ids is missing": bool(_setting(config, "target_layer_ids")),
        "mask_token_id is missing": _setting(config, "mask_token_id") is not None,
    }
    for problem, is_fine in known.items():
        if not is_fine:
            raise UnsupportedError(f"{problem}: llama.cpp knows no such draft of Gemma 4", file="config.json")
    rope = config.rope if config["rope_parameters"] else _DEFAULT_ROPE
    if rope.get("rope_type") not in ("default", "proportional"):
        raise UnsupportedError(f"rope_type {rope.get('rope_type')!r:.40} is not known", file="config.json")
    return config.updated(rope_parameters=rope)


def _mask(source: TokenizerSource) -> Metadata:
    return mask_token(source, _setting(source.config, "mask_token_id"), "mask_token_id")


def _head(site: Site) -> int:
    return site.config.integer("global_head_dim")


def _key_heads(site: Site) -> int:
    return site.config.integer("num_global_key_value_heads")


gemma4_dspark = dflash.derive(
    "dflash",
    hf=("Gemma4DSparkModel",),
    metadata=(
        *dflash.metadata,
        u32("attention.head_count_kv", _key_heads),
        u32("attention.key_length", _head),
        u32("attention.value_length", _head),
        u32("rope.dimension_count", _head),
        f32("embedding_scale", lambda site: sqrt(hidden(site))),
        f32("attention.scale", lambda site: 1.0),
        text("hidden_activation", lambda site: _ACTIVATION),
        flag("sample_from_anchor", lambda site: site.config.get("sample_from_anchor", True)),
        flag("has_confidence_head", has_confidence_head),
    ),
    tokenizer=in_order(target_vocabulary, _mask),
    renames=(
        starts("model."),
        starts("", "model."),
        starts("model.confidence_proj.", "model.confidence_head.proj.", put_back=False),
        *WRAPPERS,
    ),
    names={
        "model.layers.{i}.layer_scalar": "blk.{i}.layer_output_scale.weight",
        "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
        "model.layers.{i}.pre_feedforward_layernorm": "blk.{i}.ffn_norm",
    },
    operations={},
    generated=lambda site: rope_factors(site) if site.config.rope.get("rope_type") == "proportional" else (),
    shapes={
        **DECODER_SHAPES,
        "attn_q": (lambda site: heads(site) * _head(site), hidden),
        "attn_k": (lambda site: _key_heads(site) * _head(site), hidden),
        "attn_output": (hidden, lambda site: heads(site) * _head(site)),
    },
    prepare=_checked,
    layer_tensors=lambda site: ("attn_norm", "attn_q", "attn_k", "attn_output", "ffn_norm", *GATED),
)
