"""Falcon-H1: attention and Mamba 2 side by side in every layer. Its multipliers are multiplied into the weights."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import ATTENTION, GATED, MAMBA2
from gguf_forge.architectures.config import Config, positive
from gguf_forge.architectures.declaration import Architecture, Operation
from gguf_forge.architectures.families.mamba import (
    DT_BIAS,
    MAMBA2_KEYS,
    MAMBA2_OPERATIONS,
    groups,
    inner_size,
)
from gguf_forge.architectures.metadata import f32, rope, u32
from gguf_forge.architectures.operations import chain, concat, cut, each_of, multiply
from gguf_forge.architectures.renames import WRAPPERS
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import bpe

_MLP_MULTIPLIERS, _SSM_MULTIPLIERS = ("mlp_multipliers", 2), ("ssm_multipliers", 5)


def _by(*keys: str) -> Operation:
    """Multiplies by the numbers under these config keys, one after the other."""
    return chain(*(multiply(_number(key)) for key in keys))


def _number(key: str) -> Callable[[Site], float]:
    return lambda site: site.config.number(key)


def _one_of(listed: tuple[str, int], which: int) -> Callable[[Site], float]:
    key, count = listed

    def number(site: Site) -> float:
        numbers = site.config.find(key)
        if not isinstance(numbers, list) or len(numbers) != count:
            raise InputError(f"{key} is {numbers!r:.40}, not a list of {count} numbers", file="config.json")
        return positive(numbers[which], key, None)

    return number


def _ends_of_parts(site: Site) -> tuple[int, ...]:
    """The ends of the gate, the values, B and C among the input rows. The time steps come last."""
    inner, state = inner_size(site), groups(site) * site.config.integer("mamba_d_state")
    return 0, inner, 2 * inner, 2 * inner + state, 2 * inner + 2 * state


def _part(which: int) -> Operation:
    """The rows of one of the five parts, multiplied by its multiplier."""

    def start(site: Site) -> int:
        return _ends_of_parts(site)[which]

    def stop(site: Site) -> int:
        return _ends_of_parts(site)[which + 1]

    return chain(cut(-2, start, None if which == 4 else stop), multiply(_one_of(_SSM_MULTIPLIERS, which)))


falcon_h1 = Architecture(
    "falcon-h1",
    hf=("FalconH1ForCausalLM",),
    metadata=(
        *MAMBA2_KEYS,
        u32("vocab_size", "vocab_size"),
        u32("context_length", lambda site: site.config.get("max_position_embeddings", 0)),
        u32("feed_forward_length", "intermediate_size"),
        u32("attention.head_count", "num_attention_heads"),
        u32("attention.head_count_kv", "num_key_value_heads"),
        u32("attention.key_length", "head_dim"),
        u32("attention.value_length", "head_dim"),
        f32("rope.freq_base", rope("rope_theta")),
    ),
    tokenizer=bpe,
    renames=(*WRAPPERS, DT_BIAS),
    operations={
        **MAMBA2_OPERATIONS,
        "token_embd": _by("embedding_multiplier"),
        "output": _by("lm_head_multiplier"),
        "attn_q": _by("attention_in_multiplier"),
        "attn_k": _by("key_multiplier", "attention_in_multiplier"),
        "attn_v": _by("attention_in_multiplier"),
        "attn_output": _by("attention_out_multiplier"),
        "ffn_gate": multiply(_one_of(_MLP_MULTIPLIERS, 0)),
        "ffn_down": multiply(_one_of(_MLP_MULTIPLIERS, 1)),
        "ssm_in": chain(_by("ssm_in_multiplier"), each_of(*map(_part, range(5)), then=concat())),
        "ssm_out": _by("ssm_out_multiplier"),
    },
    read_config=Config.raw,
    # Only models with mamba_rms_norm have the norm of the state space.
    layer_tensors=lambda site: (
        *ATTENTION,
        *(name for name in MAMBA2 if name != "ssm_norm" or site.config.find("mamba_rms_norm")),
        "ffn_norm",
        *GATED,
    ),
)
