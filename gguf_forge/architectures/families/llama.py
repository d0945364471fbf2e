"""Llama, and the models that kept its tensor names: Mistral and Mixtral."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.architectures.operations import experts, permute_rope
from gguf_forge.architectures.renames import BODY_NAMES, WRAPPERS, starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import (
    add_bos_token,
    any_vocabulary,
    configured_space_prefix,
    has_vocab_size,
    in_order,
    special_ids,
    when,
)

HEADS = ("n_heads", "num_attention_heads")
KEY_HEADS = ("n_kv_heads", "num_key_value_heads")
EXPERT_COUNT = ("num_local_experts", "num_experts", "n_routed_experts")


def llama3_rope_factors(site: Site) -> Iterable[tuple[str, NDArray[np.float32]]]:
    """What Llama 3.1 divides each rotary frequency by: 1 for short waves, `factor` for long ones, a blend between.

    Source: the `llama3` rope type of transformers, computed in float32 as the reference does.
    """
    if str(site.config.rope.get("rope_type", "")).lower() != "llama3":
        return
    factor = site.config.rope_number("factor", 8.0)
    low, high = site.config.rope_number("low_freq_factor", 1.0), site.config.rope_number("high_freq_factor", 4.0)
    trained = site.config.rope_number("original_max_position_embeddings", 8192)
    if low == high:
        raise InputError(f"low_freq_factor and high_freq_factor are both {low}", file="config.json")
    exponents = np.arange(0, site.config.head_dim, 2, dtype=np.float32) / np.float32(site.config.head_dim)
    # the power is rounded once, from float64: that is the same on every machine
    powers = np.power(site.config.rope_number("rope_theta", 10000.0), exponents.astype(np.float64))
    frequencies = np.float32(1.0) / powers.astype(np.float32)
    wavelengths = np.float32(2 * math.pi) / frequencies
    blend = (np.float32(trained) / wavelengths - np.float32(low)) / np.float32(high - low)
    blended = np.float32(1) / ((np.float32(1) - blend) / np.float32(factor) + blend)
    factors = np.where(
        wavelengths < trained / high,
        np.float32(1),
        np.where(wavelengths > trained / low, np.float32(factor), blended),
    )
    yield "rope_freqs.weight", factors.astype(np.float32)


llama = Architecture(
    "llama",
    hf=("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("rope.dimension_count", lambda site: site.config.head_dim),
    ),
    tokenizer=in_order(
        configured_space_prefix,
        any_vocabulary,
        # Code Llama, and the small Granite models
        when(has_vocab_size(32016), special_ids({"prefix": 32007, "suffix": 32008, "middle": 32009, "eot": 32010})),
        when(has_vocab_size(49152), add_bos_token(False)),
    ),
    rules=experts(
        "model.layers.{i}.block_sparse_moe.experts.{e}",
        ("w1", "ffn_gate_exps"),
        ("w2", "ffn_down_exps"),
        ("w3", "ffn_up_exps"),
    ),
    hf_names=("model.layers.{i}.block_sparse_moe.gate",),
    operations={"attn_q": permute_rope(HEADS), "attn_k": permute_rope(KEY_HEADS)},
    generated=llama3_rope_factors,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *(EXPERTS if site.config.find(*EXPERT_COUNT) else GATED)),
)

# without the head, and without the outermost module in names
llama_base = llama.derive("llama", hf=("LlamaModel",), renames=(*WRAPPERS, starts("", "model.")))

llama_embed = llama.derive("llama-embed", hf=("LlamaBidirectionalModel",), hf_names=BODY_NAMES)
