"""StableLM 1 and 2, some with a norm for each head."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import f32, file_type, flag, u32
from gguf_forge.architectures.operations import stack
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe, first_of, qwen

_HEADS, _KEY_HEADS = "num_attention_heads", "num_key_value_heads"


def _rotated(site: Site) -> int:
    share = site.config.rope_number("partial_rotary_factor")
    return int(share * (site.config.integer("hidden_size") // site.config.integer(_HEADS)))


stablelm = Architecture(
    "stablelm",
    hf=("StableLmForCausalLM", "StableLMEpochForCausalLM", "LlavaStableLMEpochForCausalLM"),
    metadata=(
        u32("context_length", "max_position_embeddings"),
        u32("embedding_length", "hidden_size"),
        u32("block_count", lambda site: site.block_count),
        u32("feed_forward_length", "intermediate_size"),
        u32("rope.dimension_count", _rotated),
        u32("attention.head_count", _HEADS),
        u32("attention.head_count_kv", _KEY_HEADS),
        flag("use_parallel_residual", lambda site: site.config.get("use_parallel_residual", True)),
        f32("attention.layer_norm_epsilon", "layer_norm_eps", "norm_eps"),
        file_type,
    ),
    tokenizer=first_of(bpe, qwen),
    # There is one norm for each head. The reference's converter stacks them but then loses the result.
    rules=(
        Rule(
            ("model.layers.{i}.self_attn.q_layernorm.norms.{e}.weight",),
            "blk.{i}.attn_q_norm.weight",
            stack,
            count=lambda site: site.config.integer(_HEADS, maximum=100_000),
        ),
        Rule(
            ("model.layers.{i}.self_attn.k_layernorm.norms.{e}.weight",),
            "blk.{i}.attn_k_norm.weight",
            stack,
            count=lambda site: site.config.integer(_KEY_HEADS, maximum=100_000),
        ),
    ),
    layer_tensors=lambda site: (*ATTENTION, *GATED),
)
