"""RWKV 6, and Qwen 2 with its time mixing in place of attention."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import GATED
from gguf_forge.architectures.declaration import Architecture, MetadataLine, Operation, Rule, any_of
from gguf_forge.architectures.metadata import f32, file_type, u32
from gguf_forge.architectures.operations import chain, divide, on_each, reshape, squeeze, stack, transpose
from gguf_forge.architectures.renames import WRAPPERS, OneWay
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import concat as joined
from gguf_forge.tensors.row_maps import Slice, length
from gguf_forge.tokenizer import bpe, first_of, rwkv_world, sentencepiece

SIZES: tuple[MetadataLine, ...] = (
    # The state keeps the whole past, so the model has no limit.
    u32("context_length", lambda site: 1 << 20),
    u32("embedding_length", "hidden_size"),
    u32("block_count", lambda site: site.block_count),
)


def _suffixed(name: str, site: Site) -> str:
    return name if name.endswith((".weight", ".bias")) else f"{name}.weight"


# Appends `.weight` to the names of parameters that are not in a module of their own.
SUFFIXED = OneWay(_suffixed)


def _rescaling(site: Site) -> float:
    """Halves the weights once for every few layers, so that float16 does not overflow. The model undoes this."""
    every = site.config.get("rescale_every", 0)
    if not isinstance(every, int) or every < 0:
        raise InputError(f"rescale_every is {every!r:.40}, not a number of layers", file="config.json")
    halvings = (site.layer or 0) // every if every else 0
    if halvings > 100:
        raise InputError(f"rescale_every {every} halves {halvings} times", file="config.json")
    return float(2**halvings)


# The shifted mixtures of a layer. ggml needs five of them as one tensor, in this order.
_FUSED = Rule(
    tuple(
        any_of(
            f"rwkv.blocks.{{i}}.attention.time_maa_{part}.weight",
            f"model.layers.{{i}}.self_attn.time_maa_{part}.weight",
        )
        for part in "wkvrg"
    ),
    "blk.{i}.time_mix_lerp_fused.weight",
    on_each(reshape(1, 1, -1), stack),
)

_TIME_MIX = tuple(
    f"time_mix_{part}"
    for part in (
        *("w1", "w2", "lerp_x", "lerp_fused", "decay", "decay_w1", "decay_w2"),
        *("key", "value", "receptance", "gate", "output"),
    )
)


def _inner_size(site: Site) -> object:
    given = site.config.find("intermediate_size")
    return int(site.config.integer("hidden_size") * 3.5 // 32 * 32) if given is None else given


rwkv6 = Architecture(
    "rwkv6",
    hf=("Rwkv6ForCausalLM",),
    metadata=(
        *SIZES,
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        u32("rescale_every_n_layers", "rescale_every"),
        u32("wkv.head_size", "head_size"),
        u32("time_mix_extra_dim", lambda site: 64 if site.config["hidden_size"] == 4096 else 32),
        u32("time_decay_extra_dim", lambda site: 128 if site.config["hidden_size"] == 4096 else 64),
        u32("feed_forward_length", _inner_size),
        file_type,
        u32("attention.head_count", lambda site: 0),
    ),
    tokenizer=rwkv_world,
    renames=(*WRAPPERS, SUFFIXED),
    rules=(_FUSED,),
    operations={
        "time_mix_w[12]": transpose,
        "time_mix_decay_w[12]": transpose,
        "time_mix_decay": squeeze,
        "*_lerp_*": squeeze,
        "time_mix_output": divide(_rescaling),
        "channel_mix_value": divide(_rescaling),
    },
    shapes={},
    model_tensors=("token_embd", "token_embd_norm", "output_norm", "output"),
    layer_tensors=lambda site: (
        *("attn_norm", "attn_norm_2", *_TIME_MIX, "time_mix_first", "time_mix_ln"),
        *(f"channel_mix_{part}" for part in ("key", "value", "receptance", "lerp_k", "lerp_r")),
    ),
)


def _in_order_of_rwkv(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Reorders the five parts of the outermost axis from this model's order to RWKV's."""
    (x,) = sources
    axis, size = -len(x.shape), length(x, 0) // 5
    if size * 5 != length(x, 0):
        raise InputError(f"{length(x, 0)} rows are not five parts")
    return joined(tuple(Slice(x, axis, part * size, (part + 1) * size) for part in (3, 1, 2, 0, 4)), axis)


def _rank(key: str, large: int, small: int) -> Callable[[Site], object]:
    return lambda site: site.config.get(key, large if site.config.integer("hidden_size") >= 4096 else small)


_MIXED: Operation = chain(transpose, _in_order_of_rwkv)

rwkv6qwen2 = rwkv6.derive(
    "rwkv6qwen2",
    hf=("RWKV6Qwen2ForCausalLM",),
    metadata=(
        *SIZES,
        u32(
            "wkv.head_size",
            lambda site: site.config.integer("hidden_size") // site.config.integer("num_attention_heads"),
        ),
        u32("time_mix_extra_dim", _rank("lora_rank_tokenshift", 64, 32)),
        u32("time_decay_extra_dim", _rank("lora_rank_decay", 128, 64)),
        u32("feed_forward_length", "intermediate_size"),
        file_type,
        f32("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        u32("token_shift_count", lambda site: 1),
        u32("attention.head_count_kv", "num_key_value_heads"),
        u32("attention.head_count", lambda site: 0),
    ),
    tokenizer=first_of(sentencepiece, bpe),
    operations={**rwkv6.operations, "time_mix_w[12]": _MIXED},
    model_tensors=("token_embd", "output_norm", "output"),
    layer_tensors=lambda site: ("attn_norm", *_TIME_MIX, "ffn_norm", *GATED),
)
