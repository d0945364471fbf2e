"""Qwen3-Next and Qwen3.5: gated delta nets between layers of attention, and layers that predict further tokens.

A delta net's value heads belong to key heads in groups. ggml repeats key heads as a whole, so the value heads of all
groups take turns there. Source: the classes of the reference's conversion/qwen.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from gguf_forge.architectures.appended_layers import (
    CHOICES,
    LEFT_OUT_LAYERS,
    MTP_NAMES,
    NEXTN,
    is_appended,
    is_left_out,
)
from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Operation, Rule
from gguf_forge.architectures.families.qwen import qwen2moe
from gguf_forge.architectures.metadata import Lines, flag, u32
from gguf_forge.architectures.operations import (
    add,
    by_head,
    chain,
    concat,
    each_of,
    keep,
    neg_exp,
    reshape,
    squeeze,
)
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.renames import WRAPPERS, ends, starts
from gguf_forge.architectures.shapes import DECODER_SHAPES, hidden, queries
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import ValueType
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import concat as joined
from gguf_forge.tensors.row_maps import Reorder, Slice, length

_MTP_LAYER = re.compile(r"(?:model\.)?mtp\.layers\.([0-9]{1,6})\.")


def _key_heads(site: Site) -> int:
    return site.config.integer("linear_num_key_heads")


def _value_heads(site: Site) -> int:
    """The number of value heads for each key head."""
    heads, groups = site.config.integer("linear_num_value_heads"), _key_heads(site)
    if heads % groups:
        raise InputError(f"{heads} value heads have no {groups} key heads in common", file="config.json")
    return heads // groups


def _key_dim(site: Site) -> int:
    return site.config.integer("linear_key_head_dim")


def _value_dim(site: Site) -> int:
    return site.config.integer("linear_value_head_dim")


def _all_keys(site: Site) -> int:
    return _key_heads(site) * _key_dim(site)


def _all_values(site: Site) -> int:
    return _key_heads(site) * _value_heads(site) * _value_dim(site)


def _in_turns(axis: int, *, width: bool = True, behind_keys: bool = False) -> Operation:
    """Reorders the value heads along an axis, so that heads of all groups alternate.

    Args:
        axis: The axis, counted from the end.
        width: Whether a head has as many indices as its values; otherwise it has one.
        behind_keys: Whether queries and keys come before the values.
    """

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        if _value_heads(site) == 1:
            return x
        first = 2 * _all_keys(site) if behind_keys else 0
        behind = Slice(x, axis, first, length(x, axis)) if first else x
        parts = (_key_heads(site), _value_heads(site), _value_dim(site) if width else 1)
        turned = Reorder(behind, axis, parts, (1, 0, 2), said="value heads in turns")
        return joined((Slice(x, axis, 0, first), turned), axis) if first else turned

    return apply


def block_count(site: Site) -> int:
    """The model's own layers, and those behind them: as many as the config says, or else as the checkpoint has."""
    own = site.config.block_count
    if "no_mtp" in site.choices:
        return own
    if site.config.find("mtp_num_hidden_layers"):
        return own + site.config.integer("mtp_num_hidden_layers", maximum=1000)
    found = (_MTP_LAYER.match(name) for name in site.tensors)
    return own + max((int(match[1]) + 1 for match in found if match), default=0)


def _recurrent_layers(site: Site) -> list[bool] | None:
    if site.config.find("layer_types") is None:
        return None
    own = [kind == "linear_attention" for kind in site.config.by_layer("layer_types")]
    return own + [False] * (site.block_count - len(own))


def _interval(site: Site) -> int:
    return 4 if site.config.find("full_attention_interval") is None else site.config.integer("full_attention_interval")


def is_recurrent(site: Site) -> bool:
    layer, recurrent = site.layer or 0, _recurrent_layers(site)
    return recurrent[layer] if recurrent else not is_appended(site) and (layer + 1) % _interval(site) != 0


def _rotated(site: Site) -> int:
    return int(site.config.head_dim * site.config.rope_number("partial_rotary_factor", 0.25))


DELTA_NET = ("attn_qkv", "attn_gate", "ssm_conv1d", "ssm_dt", "ssm_a", "ssm_norm", "ssm_out")


def _block(*feed_forward: str) -> Callable[[Site], tuple[str, ...]]:
    """The tensors of a layer, except its feed-forward part."""

    def tensors(site: Site) -> tuple[str, ...]:
        if is_left_out(site) or (is_appended(site) and not any(map(_MTP_LAYER.match, site.tensors))):
            return ()
        mixer = DELTA_NET if is_recurrent(site) else ATTENTION
        nextn = NEXTN if site.layer == site.config.block_count else ()
        return ("attn_norm", *mixer, "post_attention_norm", *feed_forward, *nextn)

    return tensors


_QKVZ = "model.layers.{i}.linear_attn.in_proj_qkvz.weight"


def _of_heads(which: int) -> Operation:
    """The rows of one part of all heads. They are stored head by head, each with query, key, values and gates."""
    parts = (_key_dim, _key_dim, _values_of_key, _values_of_key)
    return chain(by_head(_key_heads, parts, which), reshape(-1, "hidden_size"))


def _values_of_key(site: Site) -> int:
    return _value_heads(site) * _value_dim(site)


qwen3next = qwen2moe.derive(
    "qwen3next",
    hf=("Qwen3NextForCausalLM",),
    metadata=(
        *qwen2moe.metadata,
        u32("nextn_predict_layers", lambda site: site.block_count - site.config.block_count or None),
        u32("ssm.conv_kernel", "linear_conv_kernel_dim"),
        u32("ssm.state_size", "linear_key_head_dim"),
        u32("ssm.group_count", "linear_num_key_heads"),
        u32("ssm.time_step_rank", "linear_num_value_heads"),
        u32("ssm.inner_size", _all_values),
        flag("attention.recurrent_layers", _recurrent_layers),
        u32("full_attention_interval", _interval),
        u32("rope.dimension_count", _rotated),
    ),
    renames=(*WRAPPERS, starts("model.mtp.", "mtp.", put_back=False), ends(".dt_bias", ".dt_proj.bias"), *MTP_NAMES),
    rules=(
        *qwen2moe.rules,
        Rule((_QKVZ,), "blk.{i}.attn_qkv.weight", each_of(*map(_of_heads, range(3)), then=concat())),
        Rule((_QKVZ,), "blk.{i}.attn_gate.weight", _of_heads(3)),
    ),
    operations={"ssm_a": neg_exp, "ssm_conv1d": squeeze, "ssm_norm": keep, "*norm": add(1)},
    drops=(LEFT_OUT_LAYERS,),
    choices=CHOICES,
    block_count=block_count,
    # The queries have a gate of the same size after them.
    shapes={**DECODER_SHAPES, "attn_q": (lambda site: 2 * queries(site), hidden)},
    layer_tensors=_block(*EXPERTS),
)


def _always_sectioned(site: Site) -> Lines:
    """The default rotary sections, for checkpoints that do not give them. llama.cpp requires the key."""
    if "mrope_section" not in site.config.part("rope_parameters"):
        yield "rope.dimension_sections", values.array(ValueType.INT32, (11, 11, 10, 0))


_dense_block = _block(*GATED)

qwen35 = qwen3next.derive(
    "qwen35",
    hf=("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"),
    metadata=(*qwen3next.metadata, _always_sectioned),
    rules=(),
    operations={
        "attn_qkv": _in_turns(-2, behind_keys=True),
        "attn_gate": _in_turns(-2),
        "ssm_alpha": _in_turns(-2, width=False),
        "ssm_beta": _in_turns(-2, width=False),
        "ssm_dt": _in_turns(-1, width=False),
        "ssm_out": _in_turns(-1),
        **qwen3next.operations,
        "ssm_a": chain(_in_turns(-1, width=False), neg_exp),
        "ssm_conv1d": chain(squeeze, _in_turns(-2, behind_keys=True)),
    },
    layer_tensors=_dense_block,
)

qwen35moe = qwen35.derive(
    "qwen35moe",
    hf=("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
    rules=qwen2moe.rules,
    layer_tensors=_block(*EXPERTS),
)


def _without_weights(site: Site) -> Site:
    return replace(site, tensors={})


# Layers that predict further tokens are left out, even if the config counts them.
minicpm_v46 = qwen35.derive(
    "qwen35",
    hf=("MiniCPMV4_6ForConditionalGeneration",),
    takes=lambda name: is_text(name) and not name.startswith(("mtp", "model.merger.")),
    block_count=lambda site: block_count(_without_weights(site)),
    layer_tensors=lambda site: _dense_block(_without_weights(site)),
)
