"""Tensors that are written as one if the user wants it: queries, keys and values, or gates and ups of experts.

Source: `modify_tensors` and `prepare_qkv_fusion` in llama.cpp's conversion/base.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.mapping import PlannedTensor, named_targets
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.tensor_names import roles_of
from gguf_forge.errors import UsageError, naming
from gguf_forge.tensors.joined import concat
from gguf_forge.wording import log_of

log = log_of(__name__)

# The words of `Site.choices`.
FUSE_QKV, FUSE_GATE_UP = "fuse_qkv", "fuse_gate_up_exps"
_QKV, _QKV_ROLE = ("attn_q", "attn_k", "attn_v"), "attn_qkv"
# llama.cpp's converter never joins queries, keys and values of these architectures.
_SEPARATE = ("falcon-h1", "jamba", "muse-glimmer")
# It joins those of the model's own layers alone, not of the layers that predict further tokens.
_OWN_LAYERS = ("mimo2", "nemotron_h", "nemotron_h_moe")
_GATE_UP, _GATE_UP_ROLE = ("ffn_gate_exps", "ffn_up_exps"), "ffn_gate_up_exps"


def fused(planned: tuple[PlannedTensor, ...], architecture: Architecture, site: Site) -> tuple[PlannedTensor, ...]:
    """The tensors of a file, with those joined that the user wants as one.

    Raises:
        UsageError: the model has experts, and llama.cpp does not know their gates and ups as one.
    """
    floats = {tensor.name for tensor in planned if tensor.expr.dtype.is_float}
    known, groups = roles_of(architecture.name), dict[str, tuple[str, ...]]()
    if FUSE_QKV in site.choices:
        is_known = _QKV_ROLE in known and architecture.name not in _SEPARATE
        named = floats & named_targets(architecture, site) if is_known else ()
        n_layers = site.config.block_count if architecture.name in _OWN_LAYERS else site.block_count
        groups |= _told("--fuse-qkv", _attention(n_layers, named))
    if FUSE_GATE_UP in site.choices:
        experts = _groups(site.block_count, floats, _GATE_UP, _GATE_UP_ROLE, "weight")
        if experts and _GATE_UP_ROLE not in known:
            raise UsageError(
                f"--fuse-gate-up-exps: llama.cpp knows no such tensors of a {architecture.name} model",
                hint="leave it out",
            )
        groups |= _told("--fuse-gate-up-exps", experts)
    return _joined(planned, groups)


def _told(option: str, groups: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    if not groups:
        log.warning("%s: this model has nothing that becomes one tensor", option)
    return groups


def _attention(n_layers: int, names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The weights and biases of layers that have all three weights, and either all three biases or none."""
    weights, biases = (_groups(n_layers, names, _QKV, _QKV_ROLE, suffix) for suffix in ("weight", "bias"))
    found: dict[str, tuple[str, ...]] = {}
    for name, parts in weights.items():
        bias = name.removesuffix("weight") + "bias"
        if bias in biases:
            found |= {name: parts, bias: biases[bias]}
        elif not any(part.removesuffix("weight") + "bias" in names for part in parts):
            found[name] = parts
    return found


def _groups(
    n_layers: int, names: Collection[str], roles: Sequence[str], role: str, suffix: str
) -> dict[str, tuple[str, ...]]:
    """Name of the joined tensor -> those of its parts, for each layer that has all of them."""
    groups = {
        f"blk.{layer}.{role}.{suffix}": tuple(f"blk.{layer}.{part}.{suffix}" for part in roles)
        for layer in range(n_layers)
    }
    return {name: parts for name, parts in groups.items() if all(part in names for part in parts)}


def _joined(planned: Sequence[PlannedTensor], groups: Mapping[str, Sequence[str]]) -> tuple[PlannedTensor, ...]:
    """Each group as one tensor, in the place of that part of it which comes last."""
    places = {tensor.name: number for number, tensor in enumerate(planned)}
    tensors = {tensor.name: tensor for tensor in planned}
    made: dict[int, PlannedTensor] = {}
    for name, parts in groups.items():
        exprs = tuple(tensors[part].expr for part in parts)
        with naming(name):
            whole = concat(exprs, -2 if len(exprs[0].shape) > 1 else -1)
        last = max(places[part] for part in parts)
        made[last] = replace(planned[last], name=name, expr=whole)
    parts_of_groups = {part for parts in groups.values() for part in parts}
    return tuple(
        made.get(number, tensor)
        for number, tensor in enumerate(planned)
        if number in made or tensor.name not in parts_of_groups
    )
