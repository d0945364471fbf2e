"""Hunyuan: the dense models, those with experts, those that read pictures, and Hy3."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.appended_layers import SOME_NEXTN, with_appended_layers
from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import DECODER, Lines, f32, flag, u32
from gguf_forge.architectures.operations import MLP_EXPERTS
from gguf_forge.architectures.renames import WRAPPERS, inside
from gguf_forge.architectures.shapes import heads, hidden
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import ValueType
from gguf_forge.tokenizer import bpe
from gguf_forge.tokenizer import hunyuan as hunyuan_vocabulary
from gguf_forge.tokenizer import hunyuan_moe as hunyuan_moe_vocabulary
from gguf_forge.tokenizer import hunyuan_vl as hunyuan_vl_vocabulary

# The longest context of the models whose rotary base is scaled, which their configs understate.
_LONGEST = 256 * 1024


def _scaled_base(site: Site, alpha: float, width: int) -> float:
    """The rotary base scaled so that long contexts are interpolated. Source: NTK-aware scaled RoPE (2023)."""
    if width < 4:
        raise InputError(f"a head of {width} dimensions has no scaled rotary base", file="config.json")
    growth: float = site.config.rope_number("alpha", alpha) ** (width / (width - 2))
    return site.config.rope_number("rope_theta", 10000.0) * growth


def _longest(site: Site) -> int:
    stated = site.config.integer("max_position_embeddings")
    if site.config.rope_number("rope_theta", 10000.0) != 10000.0 or stated not in (32 * 1024, _LONGEST):
        raise UnsupportedError(
            f"the longest context of this scaled rotary embedding is not known; the config says {stated}",
            file="config.json",
        )
    return _LONGEST


def _kind(site: Site) -> object:
    return site.config.rope.get("rope_type")


def _scaling(site: Site, base: float) -> Lines:
    yield from f32("rope.freq_base", lambda _: base)(site)
    yield "rope.scaling.type", values.string("none")
    yield "rope.scaling.factor", values.f32(1)


def _contexts(length: int) -> Lines:
    yield "rope.scaling.original_context_length", values.u32(length)
    yield "context_length", values.u32(length)


def _of_all_layers(key: str) -> Callable[[Site], object]:
    """A number that the config repeats for each layer."""

    def number(site: Site) -> object:
        found = site.config.find(key)
        if not isinstance(found, list):
            return found
        if not found or any(each != found[0] for each in found):
            raise UnsupportedError(f"{key} differs from layer to layer", file="config.json")
        return found[0]

    return number


def _moe_rope(site: Site) -> Lines:
    if _kind(site) == "dynamic":
        yield from _scaling(site, _scaled_base(site, 1000.0, hidden(site) // heads(site)))
        yield from _contexts(_longest(site))


_TIED = Drop("lm_head.weight", when=lambda site: site.config.find("tie_word_embeddings") is True)
_BLOCK = (*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm")

hunyuan_moe = Architecture(
    "hunyuan-moe",
    hf=("HunYuanMoEV1ForCausalLM",),
    metadata=(
        *DECODER,
        u32("expert_shared_feed_forward_length", "intermediate_size"),
        u32("expert_feed_forward_length", _of_all_layers("moe_intermediate_size")),
        u32("expert_used_count", _of_all_layers("moe_topk")),
        u32("expert_shared_count", _of_all_layers("num_shared_expert")),
        _moe_rope,
    ),
    tokenizer=hunyuan_moe_vocabulary,
    rules=MLP_EXPERTS,
    drops=(_TIED,),
    layer_tensors=lambda site: (*_BLOCK, *EXPERTS),
)


def _without_one_expert(site: Site) -> Config:
    """The config without num_experts. Some configs of models without experts have a 1 there."""
    return site.config.without("num_experts")


def _dense_rope(site: Site) -> Lines:
    if _kind(site) in ("dynamic", "xdrope"):
        yield from _scaling(site, _scaled_base(site, 50.0, site.config.head_dim))
    if _kind(site) == "dynamic":
        yield from _contexts(_longest(site))


hunyuan_dense = Architecture(
    "hunyuan-dense",
    hf=("HunYuanDenseV1ForCausalLM",),
    metadata=(*DECODER, _dense_rope),
    tokenizer=hunyuan_vocabulary,
    prepare=_without_one_expert,
    drops=(_TIED,),
    layer_tensors=lambda site: (*_BLOCK, *GATED),
)


def _with_sections(site: Site) -> Config:
    """The config under the name that the models' own code gives their rotary embedding; transformers says `dynamic`."""
    config, parameters = _without_one_expert(site), site.config.part("rope_parameters")
    if parameters.get("rope_type") != "dynamic" or "mrope_section" not in parameters:
        return config
    sections = {"rope_type": "xdrope", "xdrope_section": parameters["mrope_section"]}
    return config.updated(rope_parameters={**parameters, **sections})


def _sectioned_rope(site: Site) -> Lines:
    if _kind(site) != "xdrope":
        return
    sections = Config(site.config.rope).integers("xdrope_section")
    yield "rope.freq_base", values.f32(site.config.rope_number("rope_theta"))
    yield "rope.scaling.alpha", values.f32(site.config.rope_number("alpha"))
    yield "rope.scaling.type", values.string("none")
    yield "rope.scaling.factor", values.f32(site.config.rope_number("factor", 1))
    yield from _contexts(site.config.integer("max_position_embeddings"))
    yield "rope.dimension_sections", values.array(ValueType.INT32, tuple(sections))


hunyuan_vl = hunyuan_dense.derive(
    "hunyuan_vl",
    hf=("HunYuanVLForConditionalGeneration",),
    metadata=(*hunyuan_dense.metadata, _sectioned_rope),
    tokenizer=hunyuan_vl_vocabulary,
    prepare=_with_sections,
)


def _shared_length(site: Site) -> int:
    shared = site.config.integer("num_shared_experts", minimum=0, default=1)
    return site.config.integer("moe_intermediate_size") * shared


def _is_dense(site: Site) -> bool:
    return (site.layer or 0) < site.config.integer("first_k_dense_replace", minimum=0, default=1)


hy_v3 = with_appended_layers(
    Architecture(
        "hy_v3",
        hf=("HYV3ForCausalLM",),
        metadata=(
            *DECODER,
            u32("expert_feed_forward_length", "moe_intermediate_size"),
            u32("expert_shared_feed_forward_length", _shared_length),
            flag("expert_weights_norm", lambda site: site.config.get("route_norm", True)),
            f32("expert_weights_scale", lambda site: site.config.get("router_scaling_factor", 1.0)),
            u32("expert_gating_func", lambda site: 2),
            SOME_NEXTN,
        ),
        tokenizer=bpe,
        renames=(*WRAPPERS, inside(".final_layernorm.", ".shared_head.norm.")),
        rules=MLP_EXPERTS,
        layer_tensors=lambda site: (*_BLOCK, *(GATED if _is_dense(site) else EXPERTS)),
    )
)
