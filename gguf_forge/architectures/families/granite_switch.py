"""Granite Switch: dense Granite with low-rank adapters in every layer, which tokens switch on.

The first of the stacked adapters is empty. It is for text that no adapter is switched on for.
"""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Drop, Operation, Rule
from gguf_forge.architectures.families.granite_moe import granite_moe, without_head_dim
from gguf_forge.architectures.metadata import f32, u32
from gguf_forge.architectures.operations import chain, concat, cut, each_of, half, keep, permute_rope, reorder
from gguf_forge.architectures.shapes import heads, hidden, key_heads
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import concat as joined
from gguf_forge.tensors.row_maps import length, reshaped
from gguf_forge.tensors.stored import Zeros

_QKV, _OUTPUT = "model.layers.{i}.self_attn.qkv_proj.", "model.layers.{i}.self_attn.o_proj."
_GATE_UP, _DOWN = "model.layers.{i}.shared_mlp.input_linear.", "model.layers.{i}.shared_mlp.output_linear."
_BUFFERS = ("adapter_token_ids", "control_to_substitute_lut")


def _prepared(site: Site) -> Config:
    """The config with the width of a head under a key that only projections use.

    For everything else, the width is the hidden size divided by the number of heads.
    """
    width = site.config.find("projection_head_dim") or site.config.head_dim
    return without_head_dim(site).updated(projection_head_dim=width)


def _end_of_queries(site: Site) -> int:
    return heads(site) * site.config.integer("projection_head_dim")


def _end_of_keys(site: Site) -> int:
    return _end_of_queries(site) + key_heads(site) * site.config.integer("projection_head_dim")


def _adapters(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """All adapters of one matrix, after an empty one. They are stored with an additional axis of length 1."""
    (x,) = sources
    if len(x.shape) != 4 or length(x, 1) != 1:
        raise InputError(f"shape {x.shape} is not adapters x 1 x rows x columns")
    stacked = reshaped(x, (length(x, 0), *x.shape[2:]))
    return joined((Zeros((1, *stacked.shape[1:]), stacked.dtype), stacked), -3)


def _rotary(count: Callable[[Site], int]) -> Operation:
    """The adapters of a matrix whose rows are permuted for rotary embedding."""
    return chain(_adapters, reorder(-2, (count, 2, -1), (0, 2, 1), "rows permuted for rotary embedding"))


def _pair(a: str, b: str, role: str, operation: Operation = _adapters) -> tuple[Rule, Rule]:
    """The two low-rank matrices of one weight's adapters."""
    return Rule((a,), f"blk.{{i}}.{role}.lora_a", _adapters), Rule((b,), f"blk.{{i}}.{role}.lora_b", operation)


def _slices(module: str, *roles: tuple[str, Operation]) -> tuple[Rule, ...]:
    """The adapters of weights that are stored as one."""
    pairs = (
        _pair(f"{module}lora_A_slices.{number}", f"{module}lora_B_slices.{number}", role, operation)
        for number, (role, operation) in enumerate(roles)
    )
    return tuple(rule for pair in pairs for rule in pair)


def _ids(key: str) -> Callable[[Site], object]:
    def listed(site: Site) -> object:
        ids = site.config.find(key)
        if not isinstance(ids, list) or len(ids) != site.config.integer("num_adapters"):
            raise InputError(f"{key} is not a list with a token for each adapter", file="config.json")
        return ids

    return listed


granite_switch = granite_moe.derive(
    "graniteswitch",
    hf=("GraniteSwitchForCausalLM",),
    metadata=(
        *granite_moe.metadata,
        u32("expert_used_count", lambda site: None if site.config.find("num_local_experts") else 0),
        u32("adapters.count", "num_adapters"),
        u32("adapters.lora_rank", "max_lora_rank"),
        u32("adapters.token_ids_activate", _ids("adapter_token_ids")),
        u32("adapters.token_ids_substitute", _ids("adapter_substitute_token_ids")),
        f32("adapters.router_gain", lambda site: site.config.get("control_token_gain", 15.0)),
    ),
    rules=(
        Rule(
            (_QKV + "base_layer.weight",),
            "blk.{i}.attn_qkv.weight",
            each_of(
                chain(cut(-2, 0, _end_of_queries), permute_rope(heads)),
                chain(cut(-2, _end_of_queries, _end_of_keys), permute_rope(key_heads)),
                cut(-2, _end_of_keys),
                then=concat(),
            ),
        ),
        *_slices(_QKV, ("attn_q", _rotary(heads)), ("attn_k", _rotary(key_heads)), ("attn_v", _adapters)),
        Rule((_OUTPUT + "base_layer.weight",), "blk.{i}.attn_output.weight", keep),
        *_pair(_OUTPUT + "lora_A", _OUTPUT + "lora_B", "attn_output"),
        Rule((_GATE_UP + "base_layer.weight",), "blk.{i}.ffn_gate.weight", half(0)),
        Rule((_GATE_UP + "base_layer.weight",), "blk.{i}.ffn_up.weight", half(1)),
        *_slices(_GATE_UP, ("ffn_gate", _adapters), ("ffn_up", _adapters)),
        Rule((_DOWN + "base_layer.weight",), "blk.{i}.ffn_down.weight", keep),
        *_pair(_DOWN + "lora_A", _DOWN + "lora_B", "ffn_down"),
    ),
    operations={},
    # The tensors that choose an adapter are made again when the model is loaded.
    drops=(
        *(Drop(f"{module}switch.*") for module in ("", "model.")),
        *(Drop(f"{module}{buffer}") for module in ("", "model.") for buffer in _BUFFERS),
        Drop("lm_head.weight"),
    ),
    prepare=_prepared,
    # the last layer is the switch, which has no weights
    block_count=lambda site: site.config.block_count - 1,
    shapes={"token_embd": (None, hidden)},
    layer_tensors=lambda site: ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", *GATED),
)
