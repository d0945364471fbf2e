"""MPT, with biases that grow with distance in place of positions."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, DENSE
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import f32, u32
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import add_bos_token, bpe, first_of, in_order, sentencepiece, special_ids


def _attention(site: Site, key: str) -> object:
    return site.config.needed_part("attn_config").find(key)


mpt = Architecture(
    "mpt",
    hf=("MPTForCausalLM",),
    metadata=(
        u32("context_length", "max_seq_len"),
        u32("embedding_length", "d_model"),
        u32("block_count", lambda site: site.block_count),
        u32("feed_forward_length", lambda site: 4 * site.config.integer("d_model")),
        u32("attention.head_count", "n_heads"),
        u32("attention.head_count_kv", lambda site: _attention(site, "kv_n_heads") or None),
        f32("attention.layer_norm_epsilon", lambda site: 1e-5),
        f32("attention.clamp_kqv", lambda site: _attention(site, "clip_qkv")),
        f32(
            "attention.max_alibi_bias",
            lambda site: _attention(site, "alibi_bias_max") if _attention(site, "alibi") else 0.0,
        ),
    ),
    tokenizer=first_of(
        bpe, in_order(sentencepiece, add_bos_token(False), special_ids({"padding": 3, "eos": 1, "unknown": 0}))
    ),
    names={"transformer.blocks.{i}.ffn.act.scales": "blk.{i}.ffn.act.scales"},
    shapes={},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *DENSE),
)
