"""DeciLM: a Llama whose layers differ, found by search. Some have linear attention, none, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.families.llama import llama3_rope_factors
from gguf_forge.architectures.metadata import DECODER, Lines, f32, file_type, rope, u32
from gguf_forge.architectures.operations import keep, permute_rope
from gguf_forge.architectures.shapes import DECODER_SHAPES, at_layer, heads, hidden, key_heads
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import bpe, either, has_vocab_size, llama_hf

_HEADS, _KEY_HEADS, _INNER = "num_attention_heads", "num_key_value_heads", "intermediate_size"
_BLOCKS, _KEY_HEADS_BY_LAYER = "block_configs", "num_key_value_heads_per_layer"


def _part(block: object, name: str) -> Mapping[str, object]:
    part = block.get(name) if isinstance(block, dict) else None
    if not isinstance(part, dict):
        raise InputError(f"a block of {_BLOCKS} says nothing of its {name}", file="config.json")
    return part


def _inner_size(multiplier: object, width: int) -> int:
    """2/3 of `ffn_mult` times the model's width, rounded up to a multiple of 256; 0 for a layer without this part."""
    if multiplier is None:
        return 0
    if isinstance(multiplier, bool) or not isinstance(multiplier, int | float) or not 0 <= multiplier < 1000:
        raise InputError(f"ffn_mult is {multiplier!r:.40}, not a factor of the model's width", file="config.json")
    return -(-int(2 * multiplier * width / 3) // 256) * 256


def _head_counts(attention: Mapping[str, object], count: int) -> tuple[int, int]:
    """The numbers of query heads and key heads of a layer. A layer with linear attention has no key heads."""
    group = attention.get("n_heads_in_group")
    if group is None:
        return (count if attention.get("replace_with_linear") is True else 0), 0
    return count, count // Config(attention).integer("n_heads_in_group")


def _by_layer(site: Site) -> Config:
    """The config with lists that have a number for each layer, if layers differ in more than their key heads."""
    config = site.config
    if _BLOCKS not in config:
        return config
    blocks, width, count = config.by_layer(_BLOCKS), config.integer("hidden_size"), config.integer(_HEADS)
    counts = [_head_counts(_part(block, "attention"), count) for block in blocks]
    return config.updated(
        **{
            "head_dim": config.head_dim,
            _HEADS: [queries for queries, _ in counts],
            _KEY_HEADS: [keys for _, keys in counts],
            _INNER: [_inner_size(_part(block, "ffn").get("ffn_mult"), width) for block in blocks],
        }
    )


_WHERE_BLOCKS_DIFFER = (
    f32("rope.freq_base", rope("rope_theta")),
    u32("attention.head_count_kv", _KEY_HEADS),
    u32("attention.head_count", _HEADS),
    u32("feed_forward_length", _INNER),
    u32("block_count", lambda site: site.block_count),
    u32("context_length", "max_position_embeddings"),
    u32("embedding_length", "hidden_size"),
    f32("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    u32("attention.key_length", lambda site: site.config.head_dim),
    u32("attention.value_length", lambda site: site.config.head_dim),
    file_type,
)
_WHERE_KEYS_DIFFER = (*DECODER, u32("attention.head_count_kv", _KEY_HEADS_BY_LAYER))


def _key_heads(site: Site) -> int:
    return key_heads(site) if _KEY_HEADS_BY_LAYER not in site.config else at_layer(site, _KEY_HEADS_BY_LAYER)


def _keys(site: Site) -> int:
    return _key_heads(site) * site.config.head_dim


def _table(site: Site) -> Lines:
    for line in _WHERE_BLOCKS_DIFFER if _BLOCKS in site.config else _WHERE_KEYS_DIFFER:
        yield from line(site)


def _at(site: Site, key: str) -> object:
    """The config's entry for the site's layer."""
    found = site.config.find(key)
    layer = site.layer or 0
    return found[layer] if isinstance(found, list) and layer < len(found) else found


def _layer(site: Site) -> tuple[str, ...]:
    linear = ("attn_norm", "attn_output") if _at(site, _HEADS) else ()
    attention = linear if _at(site, _KEY_HEADS) == 0 else ATTENTION
    return (*attention, *(("ffn_norm", *GATED) if _at(site, _INNER) else ()))


deci = Architecture(
    "deci",
    hf=("DeciLMForCausalLM",),
    metadata=(
        _table,
        u32("vocab_size", "vocab_size"),
        u32("rope.dimension_count", lambda site: site.config.head_dim),
    ),
    tokenizer=either(has_vocab_size(128256), bpe, llama_hf),
    rules=(
        Rule(
            ("model.layers.{i}.self_attn.linear_attn.weight",),
            "blk.{i}.attn_output.weight",
            keep,
            when=lambda site: _at(site, _KEY_HEADS) == 0,
        ),
    ),
    operations={"attn_q": permute_rope(heads), "attn_k": permute_rope(_key_heads)},
    generated=llama3_rope_factors,
    prepare=_by_layer,
    shapes={**DECODER_SHAPES, "attn_k": (_keys, hidden), "attn_v": (_keys, hidden)},
    layer_tensors=_layer,
)
