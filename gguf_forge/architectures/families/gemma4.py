"""Gemma 4: wider heads in layers with full attention, experts next to the dense part, and its draft models."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.completeness import EXPERTS, GATED
from gguf_forge.architectures.config import MAX_HEAD_DIM
from gguf_forge.architectures.families.gemma import gemma3
from gguf_forge.architectures.families.gemma3n import shares_keys
from gguf_forge.architectures.metadata import SLIDING_PATTERN, Lines, sliding_layers, u32
from gguf_forge.architectures.operations import first_rows
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.shapes import DECODER_SHAPES, heads, hidden
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tokenizer import TokenizerFiles, TokenizerSource, suppressed_tokens
from gguf_forge.tokenizer import gemma4 as gemma4_vocabulary


def _of_full_layers(site: Site, key: str, own: str) -> int | None:
    """A number for the layers with full attention: from a key of its own, or from the configs of single layers."""
    if site.config.find(own) is not None:
        return site.config.integer(own, maximum=MAX_HEAD_DIM)
    layers = site.config.part("per_layer_config")
    full = {str(layer) for layer, slides in enumerate(sliding_layers(site)) if not slides} if layers else ()
    told = (layers.part(layer) for layer in layers if layer in full)
    return next((layer.integer(key, maximum=MAX_HEAD_DIM) for layer in told if key in layer), None)


def _wide_head(site: Site) -> int:
    found = _of_full_layers(site, "head_dim", "global_head_dim")
    if found is None:
        raise InputError("global_head_dim is missing", file="config.json")
    return found


def _key_heads_of_full(site: Site) -> int | None:
    return _of_full_layers(site, "num_key_value_heads", "num_global_key_value_heads")


def _slides(site: Site) -> bool:
    return sliding_layers(site)[site.layer or 0]


def _head(site: Site) -> int:
    return site.config.integer("head_dim") if _slides(site) else _wide_head(site)


def _key_heads(site: Site) -> int:
    own = site.config.integer("num_key_value_heads")
    return own if _slides(site) else _key_heads_of_full(site) or own


def _key_head_counts(site: Site) -> list[int] | None:
    if _key_heads_of_full(site) is None:
        return None
    return [_key_heads(site.at(layer)) for layer in range(site.block_count)]


def _inner(site: Site) -> int:
    return site.config.integer("intermediate_size") * (2 if _is_double(site) and shares_keys(site) else 1)


def _is_double(site: Site) -> bool:
    return site.config.find("use_double_wide_mlp") is True


def _inner_sizes(site: Site) -> list[int] | None:
    return [_inner(site.at(layer)) for layer in range(site.block_count)] if _is_double(site) else None


def _rotated_in_window(site: Site) -> int:
    factor = site.config.part("rope_parameters").number("partial_rotary_factor", default=1.0)
    return int(site.config.integer("head_dim") * factor)


def rope_factors(site: Site) -> Iterable[tuple[str, NDArray[np.float32]]]:
    """What llama.cpp divides frequencies by in layers that see everything: a huge number leaves a dimension as it is.

    Source: the `proportional` rope type of transformers, which rotates the first part of each half of a head.
    """
    if site.config.rope.get("rope_type") != "proportional":
        raise UnsupportedError("full_attention has another rope_type than proportional", file="config.json")
    head, share = _wide_head(site), site.config.rope_number("partial_rotary_factor")
    if share > 1:
        raise InputError(f"partial_rotary_factor is {share}, which is more than a whole head", file="config.json")
    rotated = int(head * share / 2)
    yield "rope_freqs.weight", np.array([1.0] * rotated + [1e30] * (head // 2 - rotated), np.float32)


def _layer(site: Site) -> tuple[str, ...]:
    value = () if site.config.find("attention_k_eq_v") and not _slides(site) else ("attn_v",)
    own = () if shares_keys(site) else ("attn_k", "attn_k_norm", *value)
    mixture = EXPERTS if site.config.find("enable_moe_block") else ()
    return ("attn_norm", "attn_q", *own, "attn_output", "ffn_norm", *GATED, *mixture, "layer_output_scale")


gemma4 = gemma3.derive(
    "gemma4",
    hf=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
    metadata=(
        *gemma3.metadata,
        u32("attention.shared_kv_layers", "num_kv_shared_layers"),
        u32("embedding_length_per_layer_input", lambda site: site.config.find("hidden_size_per_layer_input") or 0),
        SLIDING_PATTERN,
        u32("attention.key_length", _wide_head),
        u32("attention.value_length", _wide_head),
        u32("attention.key_length_swa", "head_dim"),
        u32("attention.value_length_swa", "head_dim"),
        u32("expert_feed_forward_length", "expert_intermediate_size", "moe_intermediate_size"),
        u32("feed_forward_length", _inner_sizes),
        u32("attention.head_count_kv", _key_head_counts),
        u32("rope.dimension_count", _wide_head),
        u32("rope.dimension_count_swa", _rotated_in_window),
    ),
    tokenizer=gemma4_vocabulary,
    # Norms multiply by the weight, unlike those of the other Gemmas, which multiply by 1 + weight.
    operations={"token_embd": first_rows("real_vocab_size")},
    names={
        "model.layers.{i}.layer_scalar": "blk.{i}.layer_output_scale.weight",
        "model.layers.{i}.experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps.weight",
        "model.layers.{i}.experts.down_proj": "blk.{i}.ffn_down_exps.weight",
        "model.layers.{i}.router.scale": "blk.{i}.ffn_gate_inp.scale",
        "model.layers.{i}.router.per_expert_scale": "blk.{i}.ffn_down_exps.scale",
    },
    generated=rope_factors,
    shapes={
        **DECODER_SHAPES,
        "attn_q": (lambda site: heads(site) * _head(site), hidden),
        "attn_k": (lambda site: _key_heads(site) * _head(site), hidden),
        "attn_v": (lambda site: _key_heads(site) * _head(site), hidden),
        "attn_output": (hidden, lambda site: heads(site) * _head(site)),
        "ffn_gate": (_inner, hidden),
        "ffn_up": (_inner, hidden),
        "ffn_down": (hidden, _inner),
    },
    layer_tensors=_layer,
)


def _suppressed_tokens(site: Site) -> Lines:
    yield from suppressed_tokens(TokenizerSource(TokenizerFiles(site.folder), site.config)).items()


gemma4_unified = gemma4.derive(
    "gemma4", hf=("Gemma4UnifiedForConditionalGeneration",), metadata=(*gemma4.metadata, _suppressed_tokens)
)

# A draft model: it reads the output of its target's last layer, and uses the target's keys and values.
gemma4_assistant = gemma4.derive(
    "gemma4-assistant",
    hf=("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"),
    metadata=(
        *gemma4.metadata,
        u32("embedding_length_out", "backbone_hidden_size"),
        u32("nextn_predict_layers", lambda site: site.block_count),
    ),
    takes=lambda name: is_text(name) and "masked_embedding" not in name,
)
