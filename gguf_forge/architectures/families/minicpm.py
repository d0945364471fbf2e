"""MiniCPM: Llama with three scales; and MiniCPM 3, with latent attention."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.config import positive
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.families.llama import HEADS, KEY_HEADS
from gguf_forge.architectures.metadata import DECODER, f32, file_type, u32
from gguf_forge.architectures.operations import permute_rope
from gguf_forge.architectures.shapes import SHAPES_WITHOUT_ATTENTION
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import sentencepiece


def _residual_scale(site: Site) -> float:
    return float(site.config.number("scale_depth") / site.config.integer("num_hidden_layers") ** 0.5)


def _logit_scale(site: Site) -> float:
    return site.config.integer("hidden_size") / site.config.integer("dim_model_base")


def _rope_factors(rotated: Callable[[Site], int]) -> Callable[[Site], Iterable[tuple[str, NDArray[np.float32]]]]:
    """The divisors of rotary frequencies for long and for short contexts, if the config has them."""

    def generated(site: Site) -> Iterable[tuple[str, NDArray[np.float32]]]:
        given = {name: site.config.rope.get(f"{name}_factor") for name in ("long", "short")}
        if not any(given.values()):
            return
        wanted = rotated(site) // 2
        for name, factors in given.items():
            if not isinstance(factors, list) or len(factors) != wanted:
                raise InputError(f"{name}_factor is not a list of {wanted} numbers", file="config.json")
            numbers = [positive(factor, f"{name}_factor", None) for factor in factors]
            yield f"rope_factors_{name}.weight", np.array(numbers, np.float32)

    return generated


minicpm = Architecture(
    "minicpm",
    hf=("MiniCPMForCausalLM",),
    metadata=(
        *DECODER,
        f32("embedding_scale", "scale_emb"),
        f32("residual_scale", _residual_scale),
        f32("logit_scale", _logit_scale),
    ),
    tokenizer=sentencepiece,
    operations={"attn_q": permute_rope(HEADS), "attn_k": permute_rope(KEY_HEADS)},
    generated=_rope_factors(lambda site: site.config.integer("hidden_size") // site.config.integer(*HEADS)),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)


def _head_width(site: Site) -> int:
    return site.config.integer("qk_nope_head_dim") + site.config.integer("qk_rope_head_dim")


minicpm3 = Architecture(
    "minicpm3",
    hf=("MiniCPM3ForCausalLM",),
    metadata=(
        file_type,
        u32("context_length", "max_position_embeddings"),
        u32("embedding_length", "hidden_size"),
        u32("block_count", lambda site: site.block_count),
        u32("feed_forward_length", "intermediate_size"),
        u32("attention.head_count", "num_attention_heads"),
        u32("attention.head_count_kv", "num_key_value_heads"),
        f32("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        u32("vocab_size", "vocab_size"),
        u32("attention.q_lora_rank", "q_lora_rank"),
        u32("attention.kv_lora_rank", "kv_lora_rank"),
        u32("attention.key_length", _head_width),
        u32("rope.dimension_count", "qk_rope_head_dim"),
    ),
    tokenizer=sentencepiece,
    generated=_rope_factors(lambda site: site.config.integer("qk_rope_head_dim")),
    shapes=SHAPES_WITHOUT_ATTENTION,
    layer_tensors=lambda site: (
        *("attn_norm", "attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_kv_b", "attn_output", "ffn_norm"),
        *GATED,
    ),
)
