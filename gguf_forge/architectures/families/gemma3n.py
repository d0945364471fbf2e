"""Gemma 3n: embeddings for each layer, alternating updates, and layers that share keys and values."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from gguf_forge.architectures.completeness import GATED
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.families.gemma import gemma3
from gguf_forge.architectures.metadata import SLIDING_PATTERN, Lines, u32
from gguf_forge.architectures.operations import padded_rows, stack
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import ValueType
from gguf_forge.tokenizer import add_space_prefix, bpe, first_of, gemma3n_sentencepiece, in_order


def shares_keys(site: Site) -> bool:
    """Whether the site's layer uses the keys and values of an earlier layer."""
    own = site.block_count - site.config.integer("num_kv_shared_layers", minimum=0)
    return site.layer is not None and site.layer >= own


def _sparsity_scale(site: Site) -> Lines:
    """How many standard deviations above the mean a value must be to stay, so that the given share of them vanishes.

    Source: torch's `Normal.icdf`, which computes in float32.
    """
    shares = site.config.listed("activation_sparsity_pattern")
    yield "activation_sparsity_scale", values.array(ValueType.FLOAT32, tuple(map(_quantile, shares)))


def _quantile(share: object) -> float:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise InputError(f"activation_sparsity_pattern has {share!r:.40}, not a share below 1", file="config.json")
    doubled = np.float32(2) * np.float32(share) - np.float32(1)
    if not -1 < doubled < 1:
        return math.copysign(math.inf, doubled)
    inverse_error = np.float32(NormalDist().inv_cdf((float(doubled) + 1) / 2) / math.sqrt(2))
    return float(inverse_error * np.float32(math.sqrt(2)))


def _layer(site: Site) -> tuple[str, ...]:
    own = () if shares_keys(site) else ("attn_k", "attn_v", "attn_k_norm")
    return ("attn_norm", "attn_q", *own, "attn_output", "ffn_norm", *GATED, "altup_router", "laurel_l", "inp_gate")


def _side_inputs(name: str, target: str) -> Rule:
    """The matrices of the three inputs other than the main one, stacked into one tensor."""
    return Rule(tuple(f"model.{name}.{number}.weight" for number in range(3)), target, stack)


_LISTED = "vocab_size_per_layer_input"  # tokens of images and sounds have no embeddings for each layer
gemma3n: Architecture = gemma3.derive(
    "gemma3n",
    hf=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    metadata=(
        *gemma3.metadata,
        u32("altup.active_idx", "altup_active_idx"),
        u32("altup.num_inputs", "altup_num_inputs"),
        u32("embedding_length_per_layer_input", "hidden_size_per_layer_input"),
        u32("attention.shared_kv_layers", "num_kv_shared_layers"),
        _sparsity_scale,
        SLIDING_PATTERN,
    ),
    tokenizer=first_of(in_order(gemma3n_sentencepiece, add_space_prefix(False)), bpe),
    prepare=lambda site: site.config,
    rules=(
        _side_inputs("altup_projections", "altup_proj.weight"),
        _side_inputs("altup_unembed_projections", "altup_unembd_proj.weight"),
    ),
    names={"model.layers.{i}.altup.correct_output_scale": "blk.{i}.altup_correct_scale.weight"},
    operations={"token_embd": padded_rows("vocab_size"), "per_layer_token_embd": padded_rows("vocab_size", _LISTED)},
    layer_tensors=_layer,
)
