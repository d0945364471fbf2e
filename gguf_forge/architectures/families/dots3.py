"""dots3-note: latent attention of two kinds, one within a window and one sparse, and a layer for further tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

from gguf_forge.architectures.appended_layers import is_appended, with_appended_layers
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.families.deepseek import LATENT, absorbed, deepseek2, feed_forward, with_epsilon
from gguf_forge.architectures.families.deepseek32 import INDEXER, INDEXER_METADATA
from gguf_forge.architectures.metadata import flag, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, multiply
from gguf_forge.architectures.renames import WRAPPERS, Appended
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import bpe_with

# Values that llama.cpp's graph assumes: config key -> the only value it supports, which is also the default.
_KNOWN = {
    "use_dsa": True,
    "normalization": "RMSNorm",
    "final_norm": "RMSNorm",
    "k_rope_only_layernorm": True,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "n_group": 1,
    "topk_group": 1,
    "use_dynamic_rsf": False,
    "moe_gating_fp32": False,
    "attention_gate_type": "headwise",
    "swa_attention_gate_type": "headwise",
}
_MTP_EMBEDDING = "model.mtp.embed_tokens."


def _predicting(site: Site) -> int:
    """The number of layers that predict further tokens. The config lacks it, so the checkpoint's tensors tell it."""
    told = f"{_MTP_EMBEDDING}weight" in site.tensors or "dots3note.nextn_predict_layers" in site.keys
    return int("no_mtp" not in site.choices and told)


def _slides(site: Site) -> bool:
    """Whether the site's layer attends within the window. The layer for further tokens always does."""
    kinds, own = site.config.find("layer_types"), site.config.block_count
    if not isinstance(kinds, list) or len(kinds) < own:
        raise InputError(f"layer_types is not a list of {own} layers", file="config.json")
    return is_appended(site) or kinds[site.layer or 0] == "sliding_attention"


def _own_layers(site: Site) -> list[bool]:
    return [_slides(site.at(layer)) for layer in range(site.config.block_count)]


def _by_kind(key: str) -> Callable[[Site], int]:
    """A number that has a different config key in each of the two kinds of layers."""
    return lambda site: site.config.integer(f"swa_{key}" if _slides(site) else key)


def _prepared(site: Site) -> Config:
    """The config with the heads of each layer. It raises an error if llama.cpp's graph lacks a requested feature."""
    config = site.config
    config.check_known({key: (value,) for key, value in _KNOWN.items() if key in config})
    config.check_known({f"swa_{key}": (config.find(key),) for key in ("q_lora_rank", "qk_rope_head_dim")})
    layers = range(config.block_count + _predicting(site))
    heads = [_by_kind("num_attention_heads")(site.at(layer)) for layer in layers]
    return with_epsilon(site).without("head_dim").updated(num_attention_heads=heads)


def _rescaled(rank: Callable[[Site], int]) -> Callable[[Site], float]:
    """Multiplies a norm's weight by the factor that the model applies to the activations after the norm."""

    def factor(site: Site) -> float:
        if site.config.find("apply_mla_qkv_lora_rescale") is not True:
            return 1.0
        return math.sqrt(site.config.integer("hidden_size") / rank(site))

    return factor


def _sliding(key: str, *more: str) -> Callable[[Site], int]:
    return lambda site: sum(site.config.integer(f"swa_{name}") for name in (key, *more))


dots3note = with_appended_layers(
    deepseek2.derive(
        "dots3note",
        hf=("Dots3NoteForCausalLM", "Dots3NoteForConditionalGeneration", "Dots3NoteTextForCausalLM"),
        metadata=(
            *deepseek2.metadata,
            u32("attention.sliding_window", "sliding_window_size"),
            flag("attention.sliding_window_pattern", _own_layers),
            u32("attention.kv_lora_rank_swa", "swa_kv_lora_rank"),
            u32("attention.key_length_swa", _sliding("kv_lora_rank", "qk_rope_head_dim")),
            u32("attention.value_length_swa", "swa_kv_lora_rank"),
            u32("attention.key_length_mla_swa", _sliding("qk_nope_head_dim", "qk_rope_head_dim")),
            u32("attention.value_length_mla_swa", "swa_v_head_dim"),
            u32("nextn_predict_layers", lambda site: _predicting(site) or None),
            *INDEXER_METADATA,
            flag("attention.indexer.types", lambda site: [not slides for slides in _own_layers(site)]),
        ),
        tokenizer=bpe_with({"eot": "<|endofassistant|>"}),
        renames=(*WRAPPERS, Appended(_MTP_EMBEDDING, "embed_tokens.")),
        rules=(
            *MLP_EXPERTS,
            *absorbed("num_attention_heads", _by_kind("qk_nope_head_dim"), _by_kind("v_head_dim")),
        ),
        operations={
            "attn_q_a_norm": multiply(_rescaled(lambda site: site.config.integer("q_lora_rank"))),
            "attn_kv_a_norm": multiply(_rescaled(_by_kind("kv_lora_rank"))),
        },
        prepare=_prepared,
        layer_tensors=lambda site: (*LATENT, "attn_gate", *feed_forward(site), *(() if _slides(site) else INDEXER)),
    ),
    _predicting,
)
