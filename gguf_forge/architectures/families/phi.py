"""Phi-2, Phi-3 and Phi-3.5 with experts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.completeness import ATTENTION, DENSE, EXPERTS
from gguf_forge.architectures.config import positive
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import Lines, f32, file_type, flag, rope, u32
from gguf_forge.architectures.operations import experts
from gguf_forge.architectures.shapes import DECODER_SHAPES, hidden, inner, keys, queries
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer import TokenizerSource, bpe, has_tokenizer_class
from gguf_forge.tokenizer import phi3 as phi3_sentencepiece

HIDDEN, HEADS = ("hidden_size", "n_embd"), ("num_attention_heads", "n_head")


def rotary_dimensions(site: Site) -> int:
    """The part of a head that is rotated."""
    share = site.config.rope.get("partial_rotary_factor", 1.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(f"partial_rotary_factor is {share!r:.40}, not a share of a head", file="config.json")
    return int(share * site.config.integer(*HIDDEN)) // site.config.integer(*HEADS)


phi2 = Architecture(
    "phi2",
    hf=("PhiForCausalLM",),
    metadata=(
        u32("context_length", "n_positions", "max_position_embeddings"),
        u32("embedding_length", *HIDDEN),
        u32("feed_forward_length", lambda site: 4 * site.config.integer(*HIDDEN)),
        u32("block_count", lambda site: site.block_count),
        u32("attention.head_count", *HEADS),
        u32("attention.head_count_kv", *HEADS),
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon", "layer_norm_eps"),
        u32("rope.dimension_count", rotary_dimensions),
        file_type,
        flag("tokenizer.ggml.add_bos_token", lambda site: False),
    ),
    tokenizer=bpe,
    layer_tensors=lambda site: (*ATTENTION, *DENSE),
)


def _contexts(site: Site) -> tuple[int, int]:
    """The longest context, and the one it was trained with."""
    longest = site.config.integer("n_positions", "max_position_embeddings")
    trained = site.config.rope.get("original_max_position_embeddings")
    if not isinstance(trained, int) or trained < 2:
        raise InputError(f"original_max_position_embeddings is {trained!r:.40}", file="config.json")
    return longest, trained


def _attention_factor(site: Site) -> Lines:
    """The factor of attention for contexts beyond the trained one. Source: LongRoPE, section 3.3 of its paper."""
    if not site.config.rope.get("long_factor"):
        return
    # transformers reads the old names of long rope, su and yarn, as longrope
    if site.config.rope.get("rope_type") not in ("longrope", "su", "yarn"):
        kind = site.config.rope.get("rope_type")
        raise UnsupportedError(f"long_factor with rope type {kind!r:.40} is not known", file="config.json")
    longest, trained = _contexts(site)
    scale = longest / trained
    yield (
        "rope.scaling.attn_factor",
        values.f32(math.sqrt(1 + math.log(scale) / math.log(trained)) if scale > 1.0 else 1.0),
    )


def _rope_factors(site: Site) -> Iterable[tuple[str, NDArray[np.float32]]]:
    """The divisors of LongRoPE for each rotary frequency, for long and for short contexts."""
    if not site.config.rope.get("long_factor"):
        return
    wanted = rotary_dimensions(site) // 2
    for name in ("long", "short"):
        factors = site.config.rope.get(f"{name}_factor")
        if not isinstance(factors, list) or len(factors) != wanted:
            raise InputError(f"{name}_factor is not a list of {wanted} numbers", file="config.json")
        numbers = [positive(factor, f"{name}_factor", None) for factor in factors]
        yield f"rope_factors_{name}.weight", np.array(numbers, np.float32)


def _sliding_window(site: Site) -> object:
    """The sliding window. Without one it is written as 0, because this distinguishes Phi-4 from other models."""
    return site.config.find("sliding_window") or 0


_is_phi4 = has_tokenizer_class("GPT2Tokenizer")


def _vocabulary(source: TokenizerSource) -> Metadata | None:
    return bpe(source) if _is_phi4(source) else phi3_sentencepiece(source)


phi3 = Architecture(
    "phi3",
    hf=("Phi3ForCausalLM", "Phi4ForCausalLMV"),
    early=(_attention_factor,),
    metadata=(
        u32("context_length", "n_positions", "max_position_embeddings"),
        u32("rope.scaling.original_context_length", lambda site: _contexts(site)[1]),
        u32("embedding_length", *HIDDEN),
        u32("feed_forward_length", "intermediate_size"),
        u32("block_count", lambda site: site.block_count),
        u32("attention.head_count", *HEADS),
        u32("attention.head_count_kv", "num_key_value_heads", "n_head_kv"),
        f32("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        u32("rope.dimension_count", rotary_dimensions),
        f32("rope.freq_base", rope("rope_theta")),
        file_type,
        u32("attention.sliding_window", _sliding_window),
    ),
    tokenizer=_vocabulary,
    # gate and up in one, and so are queries, keys and values
    shapes={
        **DECODER_SHAPES,
        "ffn_up": (lambda site: 2 * inner(site), hidden),
        "attn_qkv": (lambda site: queries(site) + 2 * keys(site), hidden),
    },
    generated=_rope_factors,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *DENSE),
)


phimoe = phi3.derive(
    "phimoe",
    hf=("PhiMoEForCausalLM",),
    metadata=(
        *phi3.metadata,
        u32("expert_used_count", "num_experts_per_tok", "num_experts_per_token"),
        u32("expert_count", "num_local_experts", "num_experts"),
    ),
    rules=experts(
        "model.layers.{i}.block_sparse_moe.experts.{e}",
        ("w1", "ffn_gate_exps"),
        ("w2", "ffn_down_exps"),
        ("w3", "ffn_up_exps"),
    ),
    shapes=DECODER_SHAPES,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *EXPERTS),
)
