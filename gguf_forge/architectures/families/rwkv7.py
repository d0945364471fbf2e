"""RWKV 7, as flash-linear-attention and as RWKV itself store it, and Qwen with its time mixing (ARWKV)."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import GATED
from gguf_forge.architectures.declaration import Architecture, Drop, Operation, Rule
from gguf_forge.architectures.families.rwkv6 import SIZES, SUFFIXED
from gguf_forge.architectures.metadata import f32, file_type, u32
from gguf_forge.architectures.operations import chain, of_width, reshape, squeeze, stack, transpose
from gguf_forge.architectures.renames import WRAPPERS, OneWay, ends
from gguf_forge.architectures.site import Site
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import StandIn
from gguf_forge.tokenizer import bpe, first_of, rwkv_world, sentencepiece

_LORA = "_lora.lora"
_ATTENTION = "model.layers.{i}.attention."
_HEAD = ("head_size", "head_dim")

# What several publishers call parts of names -> what RWKV itself does, in the order of the replacements.
_ONE_NAMING = {
    "blocks": "layers",
    "ffn": "feed_forward",
    "self_attn": "attention",
    "attn": "attention",
    "time_mixer.": "",
    "feed_forward_norm": "ln2",
    "g_norm": "ln_x",
}


def _renamed(name: str, site: Site) -> str:
    for old, new in _ONE_NAMING.items():
        name = name.replace(old, new)
    return name


def _is_first(site: Site) -> bool:
    return site.layer == 0


def _has_gate(site: Site) -> bool:
    return site.config.get("wkv_has_gate", True) is not False


def _lora(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """A low-rank matrix. Linear modules store it as ggml needs it, but plain parameters are stored transposed."""
    x = squeeze(site, *sources)
    names = (*site.tensors, *(source.name for source in sources if isinstance(source, StandIn)))
    return x if any(_LORA in name for name in names) else transpose(site, x)


def _twice(part: str, operation: Operation) -> tuple[Rule, Rule]:
    """The first layer has no tensors for mixing values. llama.cpp uses copies of other tensors in their place."""
    source = (f"{_ATTENTION}a{part}.weight",)
    return (
        Rule(source, f"blk.{{i}}.time_mix_v{part}.weight", operation, when=_is_first),
        Rule(source, f"blk.{{i}}.time_mix_a{part}.weight", operation),
    )


def _mixtures(parts: str) -> tuple[str, ...]:
    return tuple(f"{_ATTENTION}x_{part}.weight" for part in parts)


_FUSED = "blk.{i}.time_mix_lerp_fused.weight"
_RULES: tuple[Rule, ...] = (
    Rule((f"{_ATTENTION}x_x.weight",), _FUSED, reshape(lambda site: 6 if _has_gate(site) else 5, 1, 1, -1)),
    Rule(_mixtures("rwkvag"), _FUSED, stack, when=_has_gate),
    Rule(_mixtures("rwkva"), _FUSED, stack, when=lambda site: not _has_gate(site)),
    *_twice("0", squeeze),
    *_twice("1", _lora),
    *_twice("2", _lora),
)


def _rank(exponent: float, factor: float, *keys: str) -> Callable[[Site], object]:
    """The rank of a low-rank matrix from the config, or RWKV's default for a model of this width."""

    def rank(site: Site) -> object:
        given = site.config.find(*keys)
        default = max(1, round(site.config.integer("hidden_size") ** exponent * factor / 32)) * 32
        return default if given is None else given

    return rank


def _inner_size(site: Site) -> object:
    given = site.config.find("intermediate_size")
    return 4 * site.config.integer("hidden_size") if given is None else given


_TIME_MIX = tuple(
    f"time_mix_{part}"
    for part in (
        *("w0", "w1", "w2", "a0", "a1", "a2", "v0", "v1", "v2", "k_k", "k_a", "r_k"),
        *("lerp_fused", "key", "value", "receptance", "output"),
    )
)

rwkv7 = Architecture(
    "rwkv7",
    hf=("Rwkv7ForCausalLM", "RWKV7ForCausalLM"),
    metadata=(
        *SIZES,
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon", "norm_eps"),
        u32("wkv.head_size", *_HEAD),
        u32("attention.decay_lora_rank", _rank(0.5, 1.8, "lora_rank_decay", "decay_low_rank_dim")),
        u32("attention.iclr_lora_rank", _rank(0.5, 1.8, "lora_rank_iclr", "a_low_rank_dim")),
        u32(
            "attention.value_residual_mix_lora_rank", _rank(0.5, 1.3, "lora_rank_value_residual_mix", "v_low_rank_dim")
        ),
        u32("attention.gate_lora_rank", _rank(0.8, 0.6, "lora_rank_gate", "gate_low_rank_dim")),
        u32("feed_forward_length", _inner_size),
        file_type,
        u32("attention.head_count", lambda site: 0),
    ),
    tokenizer=rwkv_world,
    renames=(
        *WRAPPERS,
        OneWay(_renamed),
        ends(f"{_LORA}.0.weight", "1.weight"),
        ends(f"{_LORA}.2.weight", "2.weight"),
        ends(f"{_LORA}.2.bias", "0.weight"),
        SUFFIXED,
    ),
    rules=_RULES,
    operations={"time_mix_[wvg][12]": _lora, "time_mix_r_k": chain(of_width(_HEAD), reshape(-1)), "*": squeeze},
    drops=tuple(Drop(f"{_ATTENTION}v{part}.weight", when=_is_first) for part in "012"),
    shapes={},
    model_tensors=("token_embd", "token_embd_norm", "output_norm", "output"),
    layer_tensors=lambda site: (
        *("attn_norm", "attn_norm_2", *_TIME_MIX, "time_mix_ln", "time_mix_g1", "time_mix_g2"),
        *("channel_mix_key", "channel_mix_value", "channel_mix_lerp_k"),
    ),
)

arwkv7 = rwkv7.derive(
    "arwkv7",
    hf=("RwkvHybridForCausalLM",),
    metadata=(
        *SIZES,
        f32("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        u32("wkv.head_size", "head_size"),
        u32("attention.decay_lora_rank", lambda site: 64),
        u32("attention.iclr_lora_rank", lambda site: 64),
        u32("attention.value_residual_mix_lora_rank", lambda site: 32),
        u32("attention.gate_lora_rank", lambda site: 128 if _has_gate(site) else 0),
        u32("feed_forward_length", "intermediate_size"),
        file_type,
        u32("token_shift_count", lambda site: 1),
        u32("attention.head_count", lambda site: 0),
    ),
    tokenizer=first_of(sentencepiece, bpe),
    model_tensors=("token_embd", "output_norm", "output"),
    layer_tensors=lambda site: ("attn_norm", *_TIME_MIX, "ffn_norm", *GATED),
)
