"""DeepSeek V2 and V3: multi-head latent attention, and experts beside shared ones."""

from __future__ import annotations

from typing import Any

from gguf_forge.architectures.completeness import EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Drop, Rule
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, SHARED_EXPERTS, by_head, chain, transpose
from gguf_forge.architectures.shapes import DECODER_SHAPES
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe

HEADS, NOPE, VALUE = "num_key_value_heads", "qk_nope_head_dim", "v_head_dim"


def _dense_layers(site: Site) -> int:
    if site.config.find("first_k_dense_replace") is not None:
        return site.config.integer("first_k_dense_replace", minimum=0)
    return site.config.block_count if site.config.find("n_routed_experts") is None else 0


def _latent_rank(site: Site) -> int:
    return site.config.integer("kv_lora_rank") if site.config.find("kv_lora_rank") is not None else 512


def _head_width(site: Site) -> int:
    return site.config.integer(NOPE) + site.config.integer("qk_rope_head_dim")


def _yarn_log_multiplier(site: Site) -> Any:
    # a tenth, unlike elsewhere: what readers of this architecture have come to expect
    mscale = site.config["rope_parameters"].get("mscale_all_dim")
    return 0.1 * mscale if isinstance(mscale, int | float) else mscale


deepseek2 = Architecture(
    "deepseek2",
    hf=("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
    metadata=(
        *DECODER,
        # latent attention has one key/value head, as wide as the latent
        u32("attention.head_count_kv", lambda site: 1),
        u32("leading_dense_block_count", _dense_layers),
        u32("vocab_size", "vocab_size"),
        u32("attention.q_lora_rank", "q_lora_rank"),
        u32("attention.kv_lora_rank", _latent_rank),
        u32("attention.key_length", lambda site: _latent_rank(site) + site.config.integer("qk_rope_head_dim")),
        u32("attention.value_length", _latent_rank),
        u32("attention.key_length_mla", _head_width),
        u32("attention.value_length_mla", VALUE),
        u32("expert_feed_forward_length", "moe_intermediate_size", "intermediate_size"),
        u32("expert_count", "n_routed_experts"),
        u32("expert_shared_count", lambda site: site.config.get("n_shared_experts", 0)),
        f32("expert_weights_scale", "routed_scaling_factor"),
        flag("expert_weights_norm", lambda site: site.config.find("norm_topk_prob") or None),
        u32("rope.dimension_count", "qk_rope_head_dim"),
        f32("rope.scaling.yarn_log_multiplier", _yarn_log_multiplier),
    ),
    tokenizer=bpe,
    rules=(
        *MLP_EXPERTS,
        # keys are absorbed into the queries: their part of kv_b is stored transposed
        Rule(
            ("model.layers.{i}.self_attn.kv_b_proj.weight",),
            "blk.{i}.attn_k_b.weight",
            chain(by_head(HEADS, (NOPE, VALUE), 0), transpose),
        ),
        Rule(
            ("model.layers.{i}.self_attn.kv_b_proj.weight",),
            "blk.{i}.attn_v_b.weight",
            by_head(HEADS, (NOPE, VALUE), 1),
        ),
    ),
    hf_names=SHARED_EXPERTS,
    drops=(Drop("lm_head.weight", when=lambda site: site.config.find("tie_word_embeddings") is True),),
    # latent attention has shapes of its own
    shapes={
        role: sizes for role, sizes in DECODER_SHAPES.items() if not role.startswith("attn_") or role == "attn_norm"
    },
    drop_extra_layers=True,
    layer_tensors=lambda site: (
        *("attn_norm", "attn_q|attn_q_b", "attn_kv_a_mqa", "attn_k_b", "attn_v_b", "attn_output", "ffn_norm"),
        *(GATED if site.layer is not None and site.layer < _dense_layers(site) else EXPERTS),
    ),
)
