"""Step 3.5 and 3.7: heads and windows that differ from layer to layer, and layers that predict further tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.appended_layers import SOME_NEXTN, is_appended, with_appended_layers
from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.config import Config, positive
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.families.llama import rope_freqs
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.operations import add, squeeze
from gguf_forge.architectures.renames import WRAPPERS, ends, inside
from gguf_forge.architectures.shapes import SHAPES_WITHOUT_ATTENTION
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tokenizer import bpe

# The part of a head that is rotated in layers with full attention. Layers with a window rotate the whole head.
_ROTATED = 0.5


def _with_two_bases(site: Site) -> Config:
    """The rotary bases of full and of sliding attention, which the config lists together."""
    bases = site.config.find("rope_theta")
    if not isinstance(bases, list):
        return site.config
    if len(bases) < 2:
        raise InputError(f"rope_theta is {bases!r:.40}, not a list of two numbers or more", file="config.json")
    full, sliding = (positive(base, "rope_theta", None) for base in bases[:2])
    parameters = {
        **site.config.part("rope_parameters"),
        "rope_theta": full,
        "sliding_attention": {"rope_theta": sliding},
    }
    return site.config.updated(rope_theta=full, rope_parameters=parameters)


def _padded(site: Site, key: str, default: object) -> list[object]:
    """A list of the config with one value per layer of the file. It may lack values for the appended layers."""
    found = site.config.listed(key) if site.config.find(key) else []
    return [*found, *[default] * (site.block_count - len(found))][: site.block_count]


def _slides(site: Site) -> list[bool]:
    slides = [kind == "sliding_attention" for kind in _padded(site, "layer_types", "full_attention")]
    if [1.0 if each else _ROTATED for each in slides] != _padded(site, "partial_rotary_factors", _ROTATED):
        raise UnsupportedError(
            f"partial_rotary_factors must be 1 in sliding layers and {_ROTATED} elsewhere", file="config.json"
        )
    return slides


def _heads(key: str) -> Callable[[Site], list[object]]:
    def of_layers(site: Site) -> list[object]:
        full, other = site.config.integer(key), site.config.find("attention_other_setting") or {}
        sliding = other.get(key, full) if isinstance(other, dict) else full
        return [sliding if slides else full for slides in _slides(site)]

    return of_layers


def _first_with_experts(site: Site) -> int:
    listed = site.config.find("moe_layers_enum")
    if not isinstance(listed, str) or not listed.strip():
        return 0
    try:
        return max(0, min(int(layer) for layer in listed.split(",")))
    except ValueError:
        raise InputError(f"moe_layers_enum is {listed!r:.40}, not a list of layers", file="config.json") from None


def _limits(key: str) -> Callable[[Site], list[object] | None]:
    """The limit of the gates' values in each layer; 0 for no limit."""

    def of_layers(site: Site) -> list[object] | None:
        return None if site.config.find(key) is None else [limit or 0.0 for limit in _padded(site, key, 0.0)]

    return of_layers


def _rope_factors(site: Site) -> Iterable[tuple[str, NDArray[np.float32]]]:
    """Llama 3's factors for the dimensions that full attention rotates, and 1 for those that only windows do.

    Source: the `llama3` rope type of transformers, computed in float64 as the reference does here.
    """
    if str(site.config.rope.get("rope_type") or "").lower() != "llama3":
        return
    rotated = int(site.config.head_dim * _ROTATED)
    factor = site.config.rope_number("factor", 8.0)
    low, high = site.config.rope_number("low_freq_factor", 1.0), site.config.rope_number("high_freq_factor", 4.0)
    trained = site.config.rope_number("original_max_position_embeddings", 8192)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        exponents = np.arange(0, rotated, 2, dtype=np.float32) / np.float32(rotated)
        powers = np.power(site.config.rope_number("rope_theta", 10000.0), exponents.astype(np.float64))
        waves = 2 * math.pi / (np.float32(1) / powers.astype(np.float32)).astype(np.float64)
        blend = (trained / waves - low) / (high - low or 1)
        factors = np.where(
            waves < trained / high, 1, np.where(waves > trained / low, factor, 1 / ((1 - blend) / factor + blend))
        )
    rest = np.ones(site.config.head_dim // 2 - len(factors))
    yield rope_freqs(np.concatenate((factors, rest)))


def _is_dense(site: Site) -> bool:
    return is_appended(site) or (site.layer or 0) < _first_with_experts(site)


step35 = with_appended_layers(
    Architecture(
        "step35",
        hf=("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"),
        metadata=(
            *DECODER,
            u32("attention.head_count", _heads("num_attention_heads")),
            u32("attention.head_count_kv", _heads("num_attention_groups")),
            u32("attention.sliding_window", "sliding_window"),
            flag("attention.sliding_window_pattern", _slides),
            u32("attention.value_length", "head_dim"),
            u32("expert_count", "moe_num_experts"),
            u32("expert_used_count", "moe_top_k"),
            u32("expert_feed_forward_length", "moe_intermediate_size"),
            u32("expert_shared_feed_forward_length", "share_expert_dim"),
            f32("expert_weights_scale", "moe_router_scaling_factor"),
            flag("expert_weights_norm", "norm_expert_weight"),
            u32("leading_dense_block_count", _first_with_experts),
            u32("moe_every_n_layers", lambda site: site.config.get("moe_every_n_layer", 1)),
            f32("attention.layer_norm_rms_epsilon", lambda site: site.config.get("rms_norm_eps", 1e-5)),
            f32("swiglu_clamp_exp", _limits("swiglu_limits")),
            f32("swiglu_clamp_shexp", _limits("swiglu_limits_shared")),
            SOME_NEXTN,
        ),
        tokenizer=bpe,
        renames=(
            *WRAPPERS,
            ends(".moe.router_bias", ".moe.router_bias.bias"),
            inside(".transformer.shared_head.output.", ".shared_head.head."),
            inside(".transformer.shared_head.norm.", ".shared_head.norm."),
        ),
        operations={
            "*norm": add(1),
            **dict.fromkeys(("attn_gate", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"), squeeze),
        },
        generated=_rope_factors,
        prepare=_with_two_bases,
        shapes=SHAPES_WITHOUT_ATTENTION,
        layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *(GATED if _is_dense(site) else EXPERTS)),
    )
)
