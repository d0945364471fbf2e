"""Hy4: latent attention with a gate and a sink, fused experts, independent hyper-connections and sparse attention."""

from __future__ import annotations

from gguf_forge.architectures.completeness import EXPERTS, GATED, HYPER
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Drop, Rule
from gguf_forge.architectures.families.deepseek import LATENT, absorbed, deepseek2, dense_layers, with_epsilon
from gguf_forge.architectures.families.deepseek32 import INDEXER, INDEXER_METADATA
from gguf_forge.architectures.metadata import Lines, f32, flag, leading_dense, u32
from gguf_forge.architectures.operations import half, keep
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.types.tensor_type import F32

_SPARSE = ("sparse_attention", "deepseek_sparse_attention")
_FUSED = ("model.layers.{i}.mlp.experts.gate_up_proj",)


def _with_leading_layers(site: Site) -> Config:
    """The config with the number of leading dense layers, and without expert groups if there is only one group."""
    config, kinds = site.config, site.config.find("mlp_layer_types")
    stated = config.find("first_k_dense_replace")
    if isinstance(kinds, list):
        leading = leading_dense(site)
        if "dense" in kinds[leading:]:
            raise UnsupportedError("dense layers behind those with experts are not known", file="config.json")
        if stated not in (None, leading):
            raise InputError(
                f"first_k_dense_replace is {stated!r:.40}, mlp_layer_types has {leading} leading dense layers",
                file="config.json",
            )
        stated = leading
    if stated is None:
        raise InputError("neither first_k_dense_replace nor mlp_layer_types is there", file="config.json")
    one_group = config.find("n_group") == 1 and config.find("topk_group") == 1
    kept = with_epsilon(site).without("n_group", "topk_group") if one_group else with_epsilon(site)
    return kept.updated(first_k_dense_replace=stated)


def _indexers(site: Site) -> list[bool] | None:
    """For each layer, whether it has its own indexer; None if no layer has sparse attention."""
    types, kinds, count = site.config.find("indexer_types"), site.config.find("layer_types"), site.config.block_count
    if types is None and not (isinstance(kinds, list) and any(kind in _SPARSE for kind in kinds)):
        return None
    named, words = (kinds, _SPARSE) if types is None else (types, ("full",))
    if not isinstance(named, list) or len(named) < count:
        raise InputError(f"the kinds of indexers are not those of {count} layers", file="config.json")
    own = [kind in words for kind in named[:count]]
    if types is not None and not own[0]:
        raise InputError("the first layer has no indexer, and none before it to share", file="config.json")
    return own


def _indexer_metadata(site: Site) -> Lines:
    own = _indexers(site)
    if own is not None:
        for line in (*INDEXER_METADATA, flag("attention.indexer.types", lambda site: own)):
            yield from line(site)


def _clamps(site: Site) -> list[float] | None:
    limit = site.config.find("swiglu_limit")
    return [limit] * site.block_count if isinstance(limit, int | float) and limit > 0 else None


def _exact_head(site: Site) -> bool:
    return bool(site.config.find("enable_lm_head_fp32"))


_HYPER_NAMES = {
    f"model.layers.{{i}}.hc_{word}_layer.hc_pre.hc_{name}": f"blk.{{i}}.hc_{part}_{name}.weight"
    for word, part in (("attn", "attn"), ("mlp", "ffn"))
    for name in ("fn", "base", "scale")
}


def _layer(site: Site) -> tuple[str, ...]:
    own = _indexers(site)
    return (
        *(*LATENT, "attn_gate", "attn_sinks"),
        *HYPER,
        *(GATED if (site.layer or 0) < dense_layers(site) else EXPERTS),
        *(INDEXER if own is not None and own[site.layer or 0] else ()),
    )


hy_v4 = deepseek2.derive(
    "hy_v4",
    hf=("HYV4ForCausalLM",),
    metadata=(
        *deepseek2.metadata,
        u32("expert_gating_func", lambda site: 2),
        f32("swiglu_clamp_exp", _clamps),
        u32("hyper_connection.count", "hc_mult"),
        f32("hyper_connection.epsilon", "hc_eps"),
        f32("hyper_connection.magnitude", "hc_magnitude"),
        _indexer_metadata,
    ),
    prepare=_with_leading_layers,
    names={
        "model.layers.{i}.mlp.experts.down_proj": "blk.{i}.ffn_down_exps.weight",
        "model.layers.{i}.self_attn.learnable_sink_param": "blk.{i}.attn_sinks.weight",
        **{f"model.hc_head.hc_head_{name}": f"output_hc_{name}.weight" for name in ("fn", "base", "scale")},
        **_HYPER_NAMES,
    },
    rules=(
        # gate above up
        Rule(_FUSED, "blk.{i}.ffn_gate_exps.weight", half(0)),
        Rule(_FUSED, "blk.{i}.ffn_up_exps.weight", half(1)),
        *absorbed("num_attention_heads"),
        Rule(("lm_head.weight",), "output.weight", keep, when=_exact_head, forced_type=lambda base: F32),
    ),
    # llama.cpp has no graph for the layers that predict further tokens
    drops=(*deepseek2.drops, Drop("model.mtp_layers.*")),
    forced_types=dict.fromkeys(("hc_attn_fn", "hc_ffn_fn", "output_hc_fn"), lambda base: F32),
    layer_tensors=_layer,
)
