"""BailingMoE 3 (Ling 3): Kimi Delta Attention between layers of latent attention, and layers that predict further
tokens."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.appended_layers import SOME_NEXTN, with_appended_layers
from gguf_forge.architectures.completeness import EXPERTS, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, MetadataLine, Rule
from gguf_forge.architectures.families.deepseek import NOPE, VALUE, absorbed, dense_layers
from gguf_forge.architectures.families.kimi_linear import CONVOLUTIONS, MLA, SHAPES, convolution
from gguf_forge.architectures.metadata import DECODER, Lines, f32, flag, per_layer, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, chain, keep, multiply, neg_exp, reshape
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.renames import WRAPPERS, ends
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import ValueType
from gguf_forge.tokenizer import bpe

_ATTENTION = "model.layers.{i}.attention."
_GATE = (_ATTENTION + "g_proj.weight",)
_KNOWN = {
    "no_kda_lora": (True,),
    "kda_safe_gate": (True,),
    "gated_attention_proj_granularity_type": ("head_wise",),
}


def _has_attention(site: Site) -> bool:
    """Whether the layer has full attention: the last one of each group, and all layers after the last whole group."""
    layer, own, group = site.layer or 0, site.config.block_count, site.config.integer("layer_group_size")
    return layer >= own // group * group or (layer + 1) % group == 0


def _is_recurrent(site: Site) -> bool:
    return not _has_attention(site)


def _checked(site: Site) -> Config:
    site.config.check_known(_KNOWN)
    return site.config


def _clamps(key: str, source: str) -> MetadataLine:
    """The limit of the values in each layer's experts; 0 if there is none."""

    def limits(site: Site) -> object:
        listed = site.config.find(source)
        if not isinstance(listed, list):
            return listed
        given = [0.0 if limit is None else limit for limit in listed[: site.block_count]]
        return given + [0.0] * (site.block_count - len(given))

    return f32(key, limits)


def _sum_of(*keys: str) -> Callable[[Site], int]:
    return lambda site: sum(site.config.integer(key) for key in keys)


_RECURRENT = (
    *("attn_q", "attn_k", "attn_v", *CONVOLUTIONS),
    *("ssm_f_a", "ssm_g_a", "ssm_beta", "ssm_a", "ssm_dt", "ssm_norm"),
)


def _layer(site: Site) -> tuple[str, ...]:
    return (
        *("attn_norm", *((*MLA, "attn_gate") if _has_attention(site) else _RECURRENT), "attn_output"),
        *("ffn_norm", *(GATED if (site.layer or 0) < dense_layers(site) else (*EXPERTS, "exp_probs_b"))),
    )


bailingmoe3 = with_appended_layers(
    Architecture(
        "bailingmoe3",
        hf=("BailingMoeV3ForCausalLM",),
        metadata=(
            *DECODER,
            # A recurrent layer is marked by 0 key heads.
            u32("attention.head_count_kv", per_layer(lambda site: int(_has_attention(site)))),
            u32("vocab_size", "vocab_size"),
            u32("ssm.conv_kernel", "short_conv_kernel_size"),
            u32("kda.head_dim", "head_dim"),
            flag("kda.safe_gate", "kda_safe_gate"),
            f32("kda.gate_lower_bound", "kda_lower_bound"),
            u32("attention.q_lora_rank", "q_lora_rank"),
            u32("attention.kv_lora_rank", "kv_lora_rank"),
            u32("rope.dimension_count", "qk_rope_head_dim"),
            u32("attention.key_length", _sum_of("kv_lora_rank", "qk_rope_head_dim")),
            u32("attention.key_length_mla", _sum_of(NOPE, "qk_rope_head_dim")),
            u32("attention.value_length_mla", VALUE),
            u32("expert_feed_forward_length", "moe_intermediate_size"),
            u32("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size"),
            u32("expert_shared_count", lambda site: site.config.get("num_shared_experts", 1)),
            u32("leading_dense_block_count", "first_k_dense_replace"),
            f32("expert_weights_scale", "routed_scaling_factor"),
            flag("expert_weights_norm", "norm_topk_prob"),
            _clamps("swiglu_clamp_exp", "expert_swiglu_limit_list"),
            _clamps("swiglu_clamp_shexp", "share_expert_swiglu_limit_list"),
            SOME_NEXTN,
        ),
        tokenizer=bpe,
        renames=(*WRAPPERS, ends(".expert_bias", ".expert_bias.bias"), ends(".dt_bias", ".dt_proj.bias")),
        rules=(
            *MLP_EXPERTS,
            *absorbed("num_attention_heads", module="attention"),
            Rule((_ATTENTION + "f_proj.weight",), "blk.{i}.ssm_f_a.weight", keep, when=_is_recurrent),
            Rule(_GATE, "blk.{i}.ssm_g_a.weight", keep, when=_is_recurrent),
            Rule(_GATE, "blk.{i}.attn_gate.weight", keep, when=_has_attention),
        ),
        operations={
            **dict.fromkeys(CONVOLUTIONS, convolution),
            # e to its power, as a column
            "ssm_a": chain(neg_exp, multiply(-1), reshape(-1, 1)),
        },
        prepare=_checked,
        shapes=SHAPES,
        layer_tensors=_layer,
    )
)


def _sections(site: Site) -> Lines:
    sections = site.config.integers("mrope_section")
    if 2 * sum(sections[:3]) != site.config.integer("qk_rope_head_dim"):
        raise InputError(f"mrope_section {sections!r:.40} is not half of qk_rope_head_dim", file="config.json")
    yield "rope.dimension_sections", values.array(ValueType.INT32, (*sections[:3], 0))


bailingmoe3_vl = bailingmoe3.derive(
    "bailingmoe3",
    hf=("BailingMoeV3VLForConditionalGeneration",),
    metadata=(*bailingmoe3.metadata, _sections),
    takes=lambda name: is_text(name) and not name.startswith("linear_proj"),
)
