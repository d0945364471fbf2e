"""OpenELM: a decoder whose layers grow wider from the first to the last."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.config import Config, positive
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import f32, file_type, u32
from gguf_forge.architectures.operations import first_rows, rows_from
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import builtin, first_of, sentencepiece


def _inner_sizes(config: Config) -> list[int]:
    """Each layer's inner size: a multiple of the divisor that is near the multiplier's, at most a tenth below.

    Source: `make_divisible` in OpenELM's configuration.
    """
    width, divisor = config.integer("model_dim"), config.integer("ffn_dim_divisor")
    sizes = []
    for multiplier in config.by_layer("ffn_multipliers"):
        wanted = positive(multiplier, "ffn_multipliers", None) * width
        size = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
        sizes.append(size + divisor if size < 0.9 * wanted else size)
    return sizes


def _prepared(site: Site) -> Config:
    config = site.config.updated(num_hidden_layers=site.config.integer("num_transformer_layers", maximum=10_000))
    return config.updated(
        inner_sizes=_inner_sizes(config),
        num_attention_heads=config.by_layer("num_query_heads"),
        num_key_value_heads=config.by_layer("num_kv_heads"),
    )


def _head_dim(site: Site) -> int:
    return site.config.integer("head_dim")


_GATE_AND_UP = ("transformer.layers.{i}.ffn.proj_1.weight",)

openelm = Architecture(
    "openelm",
    hf=("OpenELMForCausalLM",),
    metadata=(
        u32("block_count", lambda site: site.block_count),
        u32("context_length", "max_context_length"),
        u32("embedding_length", "model_dim"),
        u32("feed_forward_length", "inner_sizes"),
        u32("attention.head_count", "num_attention_heads"),
        u32("attention.head_count_kv", "num_key_value_heads"),
        f32("rope.freq_base", "rope_freq_constant"),
        f32("attention.layer_norm_rms_epsilon", lambda site: 1e-6),
        u32("rope.dimension_count", _head_dim),
        u32("attention.key_length", _head_dim),
        u32("attention.value_length", _head_dim),
        file_type,
    ),
    tokenizer=first_of(sentencepiece, builtin("llama-spm")),
    rules=(
        Rule(_GATE_AND_UP, "blk.{i}.ffn_gate.weight", first_rows("inner_sizes")),
        Rule(_GATE_AND_UP, "blk.{i}.ffn_up.weight", rows_from("inner_sizes")),
    ),
    prepare=_prepared,
    shapes={},
    layer_tensors=lambda site: (*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm", *GATED),
)
