"""Jais, with biases that grow with distance, and Jais 2."""

from __future__ import annotations

import math

from gguf_forge.architectures.completeness import ATTENTION, DENSE, GATED
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import DECODER, f32, file_type, u32
from gguf_forge.architectures.operations import multiply, transpose
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import bpe

_SLOPES = "transformer.relative_pe.slopes"


def _embeddings_scale(site: Site) -> float:
    return site.config.number("mup_embeddings_scale", "embeddings_scale")


def _width_scale(site: Site) -> float:
    if "mup_output_alpha" in site.config:
        return site.config.number("mup_output_alpha") * site.config.number("mup_width_scale")
    return site.config.number("width_scale")


def _max_alibi_bias(site: Site) -> float:
    """The largest ALiBi bias, computed back from the first slope.

    The first slope is 2^(-bias / heads), where heads is a power of two.
    """
    if _SLOPES not in site.tensors:
        return 8.0
    first = float(site.peek(_SLOPES).reshape(-1)[0])
    if not 0 < first < 1:
        raise InputError(f"the first slope is {first}, not between 0 and 1", tensor=_SLOPES)
    heads = 2 ** math.floor(math.log2(site.config.integer("n_head")))
    return float(-round(math.log2(first) * heads))


jais = Architecture(
    "jais",
    hf=("JAISLMHeadModel",),
    early=(f32("attention.max_alibi_bias", _max_alibi_bias),),
    metadata=(
        u32("block_count", lambda site: site.block_count),
        u32("context_length", "n_positions"),
        u32("embedding_length", "n_embd"),
        u32("feed_forward_length", "n_inner"),
        u32("attention.head_count", "n_head"),
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        file_type,
    ),
    tokenizer=bpe,
    drops=(Drop(_SLOPES), Drop("transformer.h.{i}.attn.bias")),
    operations={
        "token_embd": multiply(_embeddings_scale),
        "output": multiply(_width_scale),
        **dict.fromkeys(("attn_qkv", "attn_output", "ffn_up", "ffn_gate", "ffn_down"), transpose),
    },
    shapes={},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

jais2 = Architecture(
    "jais2",
    hf=("Jais2ForCausalLM",),
    metadata=(*DECODER, u32("rope.dimension_count", lambda site: site.config.head_dim)),
    tokenizer=bpe,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *DENSE),
)
