"""Kimi K3: Kimi Linear with gates, experts that work in a latent space, and residuals that layers choose from."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.families.deepseek import NOPE, VALUE, absorbed
from gguf_forge.architectures.families.kimi_linear import (
    HYBRID_KEYS,
    KDA,
    MLA,
    MOE_RULES,
    feed_forward,
    has_attention,
    key_length,
    kimi_linear,
    linear_attention,
)
from gguf_forge.architectures.metadata import DECODER, SIGMOID, f32, flag, u32
from gguf_forge.architectures.operations import chain, cut, keep, neg_exp, reshape
from gguf_forge.architectures.site import Site
from gguf_forge.tensors.arithmetic import Product
from gguf_forge.tensors.exact_blocks import is_mxfp4, mxfp4_blocks
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import Stack
from gguf_forge.tokenizer import kimi_k3 as kimi_k3_vocabulary

_LAYER = "model.layers.{i}."
_KNOWN = {"mla_use_nope": (True,), "hidden_act": ("situ",), "moe_router_activation_func": ("sigmoid",)}
_GATE = (_LAYER + "self_attn.g_proj.weight",)


def _is_recurrent(site: Site) -> bool:
    return not has_attention(site)


def _head_length(site: Site) -> int:
    return site.config.integer(NOPE) + site.config.integer("qk_rope_head_dim")


def _score(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """The product of a norm's weight and a projection. The model uses only this product."""
    flat = reshape(-1)
    return Product(tuple(flat(site, x) for x in sources))


def _residual(source: str, target: str) -> Rule:
    return Rule((f"{source}_norm.weight", f"{source}_proj.weight"), target, _score)


def _is_packed(site: Site) -> bool:
    """Whether the layer's experts are stored in MXFP4, as in the released checkpoint."""
    name = f"model.layers.{site.layer}.block_sparse_moe.experts.0.w1.weight"
    return any(is_mxfp4(site.tensors[each]) for each in (name, f"language_model.{name}") if each in site.tensors)


def _packed_experts(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    return Stack(tuple(map(mxfp4_blocks, sources)))


def _latent(site: Site) -> object:
    return site.config.find("routed_expert_hidden_size")


def _checked(site: Site) -> Config:
    site.config.check_known(_KNOWN)
    return site.config


kimi_k3 = kimi_linear.derive(
    "kimi-k3",
    hf=("KimiK3ForConditionalGeneration",),
    metadata=(
        *DECODER,
        *HYBRID_KEYS,
        f32("kda.gate_lower_bound", linear_attention("gate_lower_bound")),
        u32("attention.q_lora_rank", "q_lora_rank"),
        u32("attention.kv_lora_rank", "kv_lora_rank"),
        u32("rope.dimension_count", "qk_rope_head_dim"),
        u32("attention.key_length", key_length),
        u32("attention.value_length", "kv_lora_rank"),
        u32("attention.key_length_mla", _head_length),
        u32("attention.value_length_mla", VALUE),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("expert_shared_count", "num_shared_experts"),
        u32("leading_dense_block_count", "first_k_dense_replace"),
        f32("expert_weights_scale", "routed_scaling_factor"),
        flag("expert_weights_norm", "moe_renormalize"),
        u32("expert_gating_func", lambda site: SIGMOID),
        u32("expert_latent_length", _latent),
        f32("activation.situ_beta", "activation_situ_beta"),
        f32("activation.situ_linear_beta", "activation_situ_linear_beta"),
        u32("attn_res.block_size", "attn_res_block_size"),
    ),
    tokenizer=kimi_k3_vocabulary,
    rules=(
        *(replace(rule, when=lambda site: not _is_packed(site)) for rule in MOE_RULES),
        *(replace(rule, operation=_packed_experts, after="", when=_is_packed, first=1) for rule in MOE_RULES),
        *absorbed("num_key_value_heads"),
        # Two tensors have the same name: the gate of a recurrence, and the gate of attention.
        Rule(_GATE, "blk.{i}.ssm_g.weight", keep, when=_is_recurrent),
        Rule(_GATE, "blk.{i}.attn_gate.weight", keep, when=has_attention),
        _residual(_LAYER + "self_attention_res", "blk.{i}.attn_res_score.weight"),
        _residual(_LAYER + "mlp_res", "blk.{i}.ffn_res_score.weight"),
        _residual("model.output_attn_res", "output_res_score.weight"),
    ),
    operations={**kimi_linear.operations, "ssm_a": chain(cut(-1, 0, "num_attention_heads"), neg_exp)},
    prepare=_checked,
    model_tensors=("token_embd", "output_norm", "output_res_score"),
    layer_tensors=lambda site: (
        *("attn_norm", *((*MLA, "attn_gate") if has_attention(site) else (*KDA, "ssm_g")), "attn_output"),
        *("attn_res_score", "ffn_res_score", *feed_forward(site)),
        *(("ffn_routed_down", "ffn_routed_up") if _latent(site) and "ffn_gate_inp" in feed_forward(site) else ()),
    ),
)
