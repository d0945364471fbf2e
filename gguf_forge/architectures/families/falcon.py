"""Falcon, whose keys and values are shared by groups of heads."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, DENSE
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import f32, file_type, text, u32
from gguf_forge.architectures.operations import chain, concat, cut, each_of, reshape
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe


def _heads(site: Site) -> int:
    return site.config.integer("num_attention_heads", "n_head")


def _key_heads(site: Site) -> int:
    if site.config.find("num_kv_heads", "n_head_kv") is None:
        return 1
    return site.config.integer("num_kv_heads", "n_head_kv")


def _width(site: Site) -> int:
    return site.config.integer("hidden_size")


def _head(site: Site) -> int:
    return _width(site) // _heads(site)


def _queries(site: Site) -> int:
    """Rows of queries in one group."""
    return _heads(site) // _key_heads(site) * _head(site)


def _keys_end(site: Site) -> int:
    return _queries(site) + _head(site)


# A group of heads has its queries, then a key and a value for all of them.
_GROUPS = reshape(_key_heads, -1, _width)
_FLAT = reshape(-1, _width)

falcon = Architecture(
    "falcon",
    hf=("FalconForCausalLM", "RWForCausalLM"),
    metadata=(
        u32("context_length", lambda site: 2048),  # not in config.json
        text("tensor_data_layout", lambda site: "jploski"),
        u32("embedding_length", "hidden_size"),
        u32("feed_forward_length", lambda site: 4 * _width(site)),
        u32("block_count", lambda site: site.block_count),
        u32("attention.head_count", _heads),
        u32("attention.head_count_kv", _key_heads),
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        file_type,
    ),
    tokenizer=bpe,
    operations={
        "attn_qkv": each_of(
            chain(_GROUPS, cut(-2, 0, _queries), _FLAT),
            chain(_GROUPS, cut(-2, _queries, _keys_end), _FLAT),
            chain(_GROUPS, cut(-2, _keys_end), _FLAT),
            then=concat(),
        )
    },
    shapes={},
    layer_tensors=lambda site: (*ATTENTION, *DENSE),
)
