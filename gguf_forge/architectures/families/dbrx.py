"""DBRX."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import EXPERTS
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import f32, file_type, u32
from gguf_forge.architectures.operations import Number, chain, reshape, transpose
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe


def _of(part: str, key: str) -> Callable[[Site], object]:
    """A value of one of the config's parts."""
    return lambda site: site.config.needed_part(part).find(key)


def _count(key: str) -> Callable[[Site], int]:
    return lambda site: site.config.needed_part("ffn_config").integer(key)


_N_EXPERTS, _INNER = _count("moe_num_experts"), _count("ffn_hidden_size")
_WIDTH: Number = "d_model"
# One matrix holds all experts, one after the other. Each has one row for each inner unit.
_EXPERTS = reshape(_N_EXPERTS, _INNER, _WIDTH)
_MLP = "transformer.blocks.{i}.ffn.experts.mlp."

dbrx = Architecture(
    "dbrx",
    hf=("DbrxForCausalLM",),
    metadata=(
        u32("block_count", lambda site: site.block_count),
        u32("context_length", "max_seq_len"),
        u32("embedding_length", "d_model"),
        u32("feed_forward_length", _INNER),
        u32("attention.head_count", "n_heads"),
        u32("attention.head_count_kv", _of("attn_config", "kv_n_heads")),
        f32("rope.freq_base", _of("attn_config", "rope_theta")),
        f32("attention.clamp_kqv", _of("attn_config", "clip_qkv")),
        u32("expert_count", _N_EXPERTS),
        u32("expert_used_count", _of("ffn_config", "moe_top_k")),
        f32("attention.layer_norm_epsilon", lambda site: 1e-5),
        file_type,
    ),
    tokenizer=bpe,
    rules=(
        Rule((_MLP + "w1",), "blk.{i}.ffn_gate_exps.weight", _EXPERTS),
        Rule((_MLP + "w2",), "blk.{i}.ffn_down_exps.weight", chain(_EXPERTS, transpose)),
        Rule((_MLP + "v1",), "blk.{i}.ffn_up_exps.weight", _EXPERTS),
    ),
    # Routers have the same type as the other matrices.
    forced_types={"*": lambda base: base},
    shapes={},
    layer_tensors=lambda site: ("attn_norm", "attn_qkv", "attn_output", "attn_output_norm", *EXPERTS),
)
