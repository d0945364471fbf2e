"""Qwen3.8: Qwen3.5 with hyper-connections in place of norms, sparse attention, and a table of n-grams in one layer."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS
from gguf_forge.architectures.declaration import Drop, Rule
from gguf_forge.architectures.families.qwen35 import DELTA_NET, is_recurrent, qwen35moe
from gguf_forge.architectures.key_tensors import KeyTable
from gguf_forge.architectures.metadata import Lines, u32
from gguf_forge.architectures.operations import add, concat, cut, squeeze
from gguf_forge.architectures.renames import WRAPPERS, ends
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError

_PLE = "model.layers.{i}.ple.ple_embedding."
_SHARD = "ngram_embedding.shard_{e}.weight"
_INDEXER = "model.layers.{i}.self_attn.indexer.index_qk_proj.weight"


def _compress_ratios(site: Site) -> list[int]:
    ratio = site.config.integer("indexer_compress_ratio")
    return [0 if is_recurrent(site.at(layer)) else ratio for layer in range(site.block_count)]


def _ngram_layers(site: Site) -> list[int]:
    """The layers with a table of n-grams, which the config counts from 1."""
    layers = site.config.find("ple_layer_ids") or []
    if not isinstance(layers, list) or not all(isinstance(each, int) and each > 0 for each in layers):
        raise InputError(f"ple_layer_ids is {layers!r:.40}, not a list of layers", file="config.json")
    return [each - 1 for each in layers]


def _last_end(site: Site) -> object:
    ends = site.config.find("eos_token_id")
    return ends[-1] if isinstance(ends, list) and ends else ends


def _n_queries(site: Site) -> int:
    return site.config.integer("indexer_n_heads") * site.config.integer("indexer_head_dim")


def _n_shards(site: Site) -> int:
    return site.config.integer("split_ngram_parts", maximum=100_000)


def _stored_under(site: Site, end: str) -> str | None:
    return next((name for name in site.tensors if name.endswith(f"ple_embedding.{end}")), None)


def _row_width(site: Site) -> int | None:
    name = _stored_under(site, _SHARD.replace("{e}", "0"))
    return site.tensors[name].shape[-1] if name is not None else None


def _ngram_keys(site: Site) -> Lines:
    if not _ngram_layers(site):
        return
    for line in (
        u32("ple.layers", _ngram_layers),
        u32("ple.ngram_size", "ngram_size"),
        u32("ple.heads_per_ngram", "heads_per_ngram"),
        u32("ple.conv_kernel", "ple_conv_kernel_size"),
        u32("ple.eos_token_id", _last_end),
        u32("ple.image_token_id", "image_token_id"),
        u32("embedding_length_per_layer_input", _row_width),
    ):
        yield from line(site)


def _has_ngrams(site: Site) -> bool:
    return bool(_ngram_layers(site))


# Tables of integers that float32 cannot represent exactly.
_HASHES = tuple(
    KeyTable(f"ple.{key}", _PLE + name, "ple.layers", _has_ngrams)
    for key, name in (
        ("layer_multipliers", "layer_multipliers"),
        ("head_offsets", "ngram_heads_offsets"),
        ("head_vocab_sizes", "ngram_heads_vocab_sizes"),
    )
)


def _hyper_connection(place: str) -> tuple[str, ...]:
    return tuple(f"hc_{place}_{part}" for part in ("norm", "down", "up", "inject"))


def _layer(site: Site) -> tuple[str, ...]:
    mixer = DELTA_NET if is_recurrent(site) else (*ATTENTION[1:], "indexer.q_proj", "indexer.k_proj")
    ngrams = ("ple_key", "ple_value", "ple_conv1d") if site.layer in _ngram_layers(site) else ()
    return (*_hyper_connection("attn"), *mixer, *_hyper_connection("ffn"), *EXPERTS, *ngrams)


qwen4exp = qwen35moe.derive(
    "qwen4exp",
    hf=("Qwen4ExpForConditionalGeneration", "Qwen4ExpForCausalLM"),
    metadata=(
        *qwen35moe.metadata,
        u32("hyper_connection.count", "hc_count"),
        u32("hyper_connection.low_rank", "hc_lowrank"),
        u32("attention.indexer.head_count", "indexer_n_heads"),
        u32("attention.indexer.key_length", "indexer_head_dim"),
        u32("attention.indexer.top_k", "indexer_budget"),
        u32("attention.compress_ratios", _compress_ratios),
        _ngram_keys,
        *_HASHES,
    ),
    renames=(*WRAPPERS, ends(".dt_bias", ".dt_proj.bias")),
    rules=(
        *qwen35moe.rules,
        Rule((_INDEXER,), "blk.{i}.indexer.q_proj.weight", cut(-2, 0, _n_queries)),
        Rule((_INDEXER,), "blk.{i}.indexer.k_proj.weight", cut(-2, _n_queries)),
        Rule(
            (_PLE + _SHARD,),
            "per_layer_token_embd.weight",
            concat(),
            when=lambda site: site.layer in _ngram_layers(site),
            count=_n_shards,
        ),
    ),
    operations={**qwen35moe.operations, "ple_norm_*": add(1), "ple_conv1d": squeeze},
    # The layers that predict further tokens are a model of their own.
    drops=(Drop("mtp.*"), Drop("model.mtp.*"), *(Drop(table.name) for table in _HASHES)),
    choices=frozenset(),
    block_count=lambda site: site.config.block_count,
    model_tensors=("token_embd", "output_hc_norm", "output_hc_down", "output_hc_up"),
    layer_tensors=_layer,
)
