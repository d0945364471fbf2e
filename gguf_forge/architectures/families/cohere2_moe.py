"""Cohere 2 with experts, and with layers that predict further tokens."""

from __future__ import annotations

from gguf_forge.architectures.appended_layers import (
    CHOICES,
    LEFT_OUT_LAYERS,
    NEXTN,
    SOME_NEXTN,
    is_appended,
    is_left_out,
    with_counted_layers,
)
from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import DECODER, SLIDING_PATTERN, Lines, f32, flag, text, u32
from gguf_forge.architectures.operations import MLP_EXPERTS
from gguf_forge.architectures.shapes import DECODER_SHAPES, hidden
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.templates import fill
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tokenizer import bpe


def _dense_layers(site: Site) -> int:
    """The number of leading layers without experts."""
    kinds = site.config.find("mlp_layer_types")
    if kinds is None:
        return site.config.integer("first_k_dense_replace", minimum=0) if "first_k_dense_replace" in site.config else 0
    if not isinstance(kinds, list):
        raise InputError(f"mlp_layer_types is {kinds!r:.40}, not a list", file="config.json")
    return next((number for number, kind in enumerate(kinds) if kind != "dense"), len(kinds))


def _dense_inner(site: Site) -> int:
    return site.config.integer("prefix_dense_intermediate_size", "dense_intermediate_size", "intermediate_size")


def _shared_experts(site: Site) -> Lines:
    if not site.config.get("num_shared_experts"):
        return
    combined = site.config.get("shared_expert_combination_strategy", "average")
    if combined != "average":
        raise UnsupportedError(
            f"shared experts are combined by {combined!r:.40}, and llama.cpp knows the average alone",
            file="config.json",
        )
    count = site.config.integer("num_shared_experts")
    yield from u32("expert_shared_count", lambda site: count)(site)
    yield from u32("expert_shared_feed_forward_length", lambda site: count * site.config.integer("intermediate_size"))(
        site
    )


def _no_bias(template: str) -> Drop:
    """Leaves out a bias of zeros. The model has no biases, but some checkpoints store zeros for them."""

    def is_zero(site: Site) -> bool:
        name = fill(template, site.layer)
        if name in site.tensors and site.peek(name).any():
            raise UnsupportedError("is not zero, and this architecture has no biases", tensor=name)
        return True

    return Drop(template, when=is_zero)


_BIASES = (
    "model.norm.bias",
    "model.layers.{i}.input_layernorm.bias",
    *(f"model.layers.{{i}}.self_attn.{name}_proj.bias" for name in "qkvo"),
    *(f"model.layers.{{i}}.mlp.{name}_proj.bias" for name in ("gate", "up", "down")),
    "model.layers.{i}.mlp.gate.bias",
)


def _layer(site: Site) -> tuple[str, ...]:
    if is_left_out(site):
        return ()
    behind = GATED if (site.layer or 0) < _dense_layers(site) else EXPERTS
    return (*ATTENTION, *behind, *(NEXTN if is_appended(site) else ()))


cohere2_moe = Architecture(
    "cohere2moe",
    hf=("Cohere2MoeForCausalLM",),
    metadata=(
        *DECODER,
        f32("logit_scale", "logit_scale"),
        u32("attention.sliding_window", "sliding_window"),
        SLIDING_PATTERN,
        u32("vocab_size", "vocab_size"),
        u32("expert_feed_forward_length", "intermediate_size"),
        u32("leading_dense_block_count", _dense_layers),
        flag("expert_weights_norm", lambda site: site.config.get("norm_topk_prob", False)),
        _shared_experts,
        SOME_NEXTN,
        u32("rope.dimension_count", "head_dim"),
        text("rope.scaling.type", lambda site: "none"),
    ),
    tokenizer=bpe,
    rules=MLP_EXPERTS,
    drops=(LEFT_OUT_LAYERS, *map(_no_bias, _BIASES)),
    choices=CHOICES,
    shapes={
        **DECODER_SHAPES,
        **{f"ffn_{name}": (_dense_inner, hidden) for name in ("gate", "up")},
        "ffn_down": (hidden, _dense_inner),
    },
    block_count=with_counted_layers,
    layer_tensors=_layer,
)
