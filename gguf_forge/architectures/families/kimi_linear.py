"""Kimi Linear: layers of Kimi Delta Attention (KDA), a recurrence, and some of multi-head latent attention (MLA)."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, MetadataLine
from gguf_forge.architectures.families.deepseek import NOPE, VALUE, absorbed, dense_layers
from gguf_forge.architectures.metadata import DECODER, Lines, f32, per_layer, u32
from gguf_forge.architectures.operations import NUMBERED, experts, neg_exp
from gguf_forge.architectures.renames import WRAPPERS, ends
from gguf_forge.architectures.shapes import DECODER_SHAPES
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import length, reshaped
from gguf_forge.tokenizer import kimi_linear as kimi_vocabulary

_MOE, _ATTENTION = "model.layers.{i}.block_sparse_moe.", "model.layers.{i}.self_attn."


def linear_attention(key: str) -> Callable[[Site], object]:
    """A parameter of the recurrent layers; None if the config lacks it."""
    return lambda site: site.config.needed_part("linear_attn_config").find(key)


def has_attention(site: Site) -> bool:
    """Whether the layer has full attention. The config counts layers from 1."""
    layers = linear_attention("full_attn_layers")(site)
    if not isinstance(layers, list):
        raise InputError("linear_attn_config has no list full_attn_layers", file="config.json")
    return (site.layer or 0) + 1 in layers


def _latent(site: Site) -> int:
    return site.config.integer("kv_lora_rank", "n_lora_kv")


def _rotated(site: Site) -> int:
    return site.config.integer("qk_rope_head_dim", "n_rot")


def key_length(site: Site) -> int:
    """The width of the one key that all heads share."""
    return _latent(site) + _rotated(site)


def convolution(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """A convolution of each channel by itself, with axes of length 1 where ggml wants them."""
    (x,) = sources
    if len(x.shape) not in (2, 3):
        raise InputError(f"shape {x.shape} is not channels x steps")
    return reshaped(x, (1, length(x, 0), 1, length(x, -1)))


MOE_RULES = experts(_MOE + "experts.{e}", *NUMBERED)

CONVOLUTIONS = tuple(f"ssm_conv1d_{part}" for part in "qkv")


KDA_OPERATIONS = {**dict.fromkeys(CONVOLUTIONS, convolution), "ssm_a": neg_exp}
KDA_NAMES = (
    _MOE + "gate",
    _MOE + "gate.e_score_correction",
    *(f"{_MOE}shared_experts.{part}_proj" for part in ("gate", "up", "down")),
    *(f"{_ATTENTION}{part}_conv1d" for part in "qkv"),
    *(f"{_ATTENTION}{part}" for part in ("f_a_proj", "f_b_proj", "b_proj", "A_log", "dt_proj", "o_norm")),
)
KDA = ("attn_q", "attn_k", "attn_v", *CONVOLUTIONS, "ssm_f_a", "ssm_f_b", "ssm_beta", "ssm_a", "ssm_dt", "ssm_norm")
MLA = ("attn_q|attn_q_b", "attn_kv_a_mqa", "attn_kv_a_norm", "attn_k_b", "attn_v_b")


def feed_forward(site: Site) -> tuple[str, ...]:
    return ("ffn_norm", *(GATED if (site.layer or 0) < dense_layers(site) else (*EXPERTS, "exp_probs_b")))


# The usual shapes that still hold with latent attention and with experts in a latent space.
SHAPES = {
    role: DECODER_SHAPES[role]
    for role in (
        *("token_embd", "output", "output_norm", "attn_norm"),
        *("ffn_gate", "ffn_up", "ffn_down", "ffn_gate_inp"),
    )
}


def _mla_length(key: str, *parts: str) -> MetadataLine:
    """A size of a head before heads share a key, under llama.cpp's name or as the sum of its parts."""

    def lines(site: Site) -> Lines:
        name = f"n_embd_head_{key[0]}_mla"
        given = site.config.find(name)
        if given is None and site.config.find(parts[0]) is not None:
            given = sum(site.config.integer(part) for part in parts)
        yield from u32(f"attention.{key}_length_mla", lambda _: given)(site)

    return lines


HYBRID_KEYS: tuple[MetadataLine, ...] = (
    u32("vocab_size", "vocab_size"),
    # A recurrent layer is marked by 0 key heads.
    u32("attention.head_count_kv", per_layer(lambda site: int(has_attention(site)))),
    u32("ssm.conv_kernel", linear_attention("short_conv_kernel_size")),
    u32("kda.head_dim", linear_attention("head_dim")),
)

kimi_linear = Architecture(
    "kimi-linear",
    hf=("KimiLinearModel", "KimiLinearForCausalLM"),
    metadata=(
        *DECODER,
        *HYBRID_KEYS,
        u32("attention.q_lora_rank", "q_lora_rank", "n_lora_q"),
        u32("attention.kv_lora_rank", _latent),
        u32("rope.dimension_count", _rotated),
        u32("attention.key_length", key_length),
        _mla_length("key", NOPE, "qk_rope_head_dim"),
        _mla_length("value", VALUE),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("expert_shared_count", "num_shared_experts"),
        u32("leading_dense_block_count", "first_k_dense_replace"),
        f32("expert_weights_scale", "routed_scaling_factor"),
    ),
    tokenizer=kimi_vocabulary,
    renames=(*WRAPPERS, ends(".dt_bias", ".dt_proj.bias")),
    rules=(*MOE_RULES, *absorbed("num_key_value_heads")),
    operations=KDA_OPERATIONS,
    shapes=SHAPES,
    layer_tensors=lambda site: (
        *("attn_norm", *(MLA if has_attention(site) else (*KDA, "ssm_g_a", "ssm_g_b")), "attn_output"),
        *feed_forward(site),
    ),
)
