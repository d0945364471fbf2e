"""Granite with experts, and Granite with a sliding window.

Both store gate and up as one matrix. It is cut for the first, and kept for the second.
"""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import MetadataLine, Rule, always
from gguf_forge.architectures.families.granite import granite
from gguf_forge.architectures.metadata import flag, u32
from gguf_forge.architectures.operations import half, keep
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError

_MOE, _SHARED = "model.layers.{i}.block_sparse_moe.", "model.layers.{i}.shared_mlp."


def without_head_dim(site: Site) -> Config:
    """The config without head_dim, because Granite's heads always share the hidden size equally."""
    return site.config.without("head_dim")


def has_experts(site: Site) -> bool:
    return bool(site.config.find("num_local_experts"))


def is_dense(site: Site) -> bool:
    return not has_experts(site)


def _has_shared(site: Site) -> bool:
    return bool(site.config.find("shared_intermediate_size"))


def _cut(module: str, suffix: str, when: Callable[[Site], bool] = always) -> tuple[Rule, Rule]:
    """Gate and up, which are stored as one."""
    source = (module + "input_linear.weight",)
    return (
        Rule(source, f"blk.{{i}}.ffn_gate{suffix}.weight", half(0), when=when),
        Rule(source, f"blk.{{i}}.ffn_up{suffix}.weight", half(1), when=when),
    )


def is_text_of_granite(name: str) -> bool:
    """Is a tensor of the language model, where a model hears or sees, too?"""
    others = ("image_", "layerwise_projectors", "spatial_projectors")
    return is_text(name) and not name.startswith("encoder.") and not any(part in name for part in others)


def picture_layers(site: Site) -> tuple[list[tuple[int, int]], list[int]]:
    """What features of a picture feed: pairs of an encoder's layer and the language model's layer, where negative
    numbers count from the end, and further layers of the language model, which count from 0."""
    config = site.config
    pairs = config.pairs("deepstack_layer_map", minimum=-(2**31)) if config.find("deepstack_layer_map") else []
    return pairs, config.integers("spatial_target_layers") if config.find("spatial_target_layers") else []


def _features_by_layer(site: Site) -> list[int] | None:
    """Which features of a picture a layer adds: their number, in the order of the layers that take some, or -1. The
    first ones stand in for embeddings."""
    pairs, spatial = picture_layers(site)
    targets = sorted([layer % site.config.block_count for _, layer in pairs] + spatial)
    if not targets:
        return None
    if targets[-1] >= site.block_count:
        raise InputError(
            "deepstack_layer_map or spatial_target_layers name a layer that is not there", file="config.json"
        )
    numbers = [-1] * site.block_count
    for number, layer in enumerate(targets[1:], 1):
        numbers[layer] = number
    return numbers


PICTURE_LAYERS = u32("deepstack_mapping", _features_by_layer)
SHARED_LENGTH = u32(
    "expert_shared_feed_forward_length", lambda site: site.config.find("shared_intermediate_size") or None
)

MOE_RULES: tuple[Rule, ...] = (*_cut(_MOE, "_exps"), *_cut(_SHARED, "_shexp", has_experts))

# Without routed experts the shared one is a usual feed-forward part.
DENSE_RULES: tuple[Rule, ...] = (
    *_cut(_SHARED, "", is_dense),
    Rule((_SHARED + "output_linear.weight",), "blk.{i}.ffn_down.weight", keep, when=is_dense),
)
_SHARED_EXPERT = ("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")


def feed_forward(site: Site) -> tuple[str, ...]:
    """The tensors of a layer after its attention or state space."""
    if not has_experts(site):
        return ("ffn_norm", *GATED)
    return ("ffn_norm", *EXPERTS, *(_SHARED_EXPERT if _has_shared(site) else ()))


# inside of models that hear or see
granite_inside = granite.derive(
    "granite",
    hf=("GraniteForCausalLM",),
    when=lambda config: "head_dim" in config or isinstance(config.find("text_config"), dict),
    metadata=(*granite.metadata, PICTURE_LAYERS),
    takes=is_text_of_granite,
    prepare=without_head_dim,
)

granite_moe = granite.derive(
    "granitemoe",
    hf=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    metadata=(*granite.metadata, PICTURE_LAYERS, SHARED_LENGTH),
    takes=is_text_of_granite,
    rules=MOE_RULES,
    prepare=without_head_dim,
    layer_tensors=lambda site: (*ATTENTION, *feed_forward(site)),
)


def _listed(site: Site, key: str) -> list[object]:
    return site.config.by_layer(key) if site.config.find(key) else []


def _slides(site: Site) -> list[bool]:
    kinds = _listed(site, "layer_types")
    if kinds:
        return [kind == "sliding_attention" for kind in kinds]
    return [layer % 4 != 0 for layer in range(site.block_count)]


def _rotates(site: Site) -> list[bool] | None:
    return [bool(each) for each in _listed(site, "no_rope_layers")] or None


_WINDOW: tuple[MetadataLine, ...] = (
    u32("attention.sliding_window", lambda site: site.config.get("sliding_window", 128)),
    flag("attention.sliding_window_pattern", _slides),
    flag("attention.rope_pattern", _rotates),
)

granite_swa = granite.derive(
    "granite_swa",
    hf=("GraniteSWAForCausalLM",),
    metadata=(*granite.metadata, *_WINDOW),
    names={"model.layers.{i}.self_attn.sinks": "blk.{i}.attn_sinks.weight"},
    prepare=without_head_dim,
    layer_tensors=lambda site: (*ATTENTION, "attn_sinks", "ffn_norm", *GATED),
)

# gate above up, for the shared expert, too
_FUSED_EXPERTS = {
    _MOE + "experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps.weight",
    _MOE + "experts.down_proj": "blk.{i}.ffn_down_exps.weight",
    _MOE + "input_linear": "blk.{i}.ffn_gate_up_exps",
    _SHARED + "input_linear": "blk.{i}.ffn_up_shexp",
    _SHARED + "output_linear": "blk.{i}.ffn_down_shexp",
}

granite_moe_swa = granite_swa.derive(
    "granite_swa",
    hf=("GraniteMoeSWAForCausalLM",),
    metadata=(*granite_swa.metadata, SHARED_LENGTH),
    names={**granite_swa.names, **_FUSED_EXPERTS},
    layer_tensors=lambda site: (
        *ATTENTION,
        "attn_sinks",
        "ffn_norm",
        *(EXPERTS if has_experts(site) else GATED),
        *(("ffn_up_shexp", "ffn_down_shexp") if has_experts(site) and _has_shared(site) else ()),
    ),
)
