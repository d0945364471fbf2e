"""DeepSeek V2 and V3: multi-head latent attention, and experts beside shared ones."""

from __future__ import annotations

from typing import Any

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Drop, Rule
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, by_head, chain, transpose
from gguf_forge.architectures.shapes import DECODER_SHAPES
from gguf_forge.tokenizer import bpe

HEADS, NOPE, VALUE = "num_key_value_heads", "qk_nope_head_dim", "v_head_dim"


def _dense_layers(config: Config) -> Any:
    leading = config.find("first_k_dense_replace")
    if leading is None:
        return config.block_count if config.find("n_routed_experts") is None else 0
    return leading


def _latent_rank(config: Config) -> int:
    return config.integer("kv_lora_rank") if config.find("kv_lora_rank") is not None else 512


def _yarn_log_multiplier(config: Config) -> Any:
    # a tenth, unlike elsewhere: what readers of this architecture have come to expect
    mscale = config["rope_parameters"].get("mscale_all_dim")
    return 0.1 * mscale if isinstance(mscale, int | float) else mscale


deepseek2 = Architecture(
    "deepseek2",
    hf=("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
    metadata=(
        *DECODER,
        # latent attention has one key/value head, as wide as the latent
        u32("attention.head_count_kv", lambda config: 1),
        u32("leading_dense_block_count", _dense_layers),
        u32("vocab_size", "vocab_size"),
        u32("attention.q_lora_rank", "q_lora_rank"),
        u32("attention.kv_lora_rank", _latent_rank),
        u32("attention.key_length", lambda config: _latent_rank(config) + config.integer("qk_rope_head_dim")),
        u32("attention.value_length", _latent_rank),
        u32("attention.key_length_mla", lambda config: config.integer(NOPE) + config.integer("qk_rope_head_dim")),
        u32("attention.value_length_mla", VALUE),
        u32("expert_feed_forward_length", "moe_intermediate_size", "intermediate_size"),
        u32("expert_count", "n_routed_experts"),
        u32("expert_shared_count", lambda config: config.get("n_shared_experts", 0)),
        f32("expert_weights_scale", "routed_scaling_factor"),
        flag("expert_weights_norm", lambda config: config.find("norm_topk_prob") or None),
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
            chain(by_head(HEADS, (NOPE, VALUE), NOPE), transpose),
        ),
        Rule(
            ("model.layers.{i}.self_attn.kv_b_proj.weight",),
            "blk.{i}.attn_v_b.weight",
            by_head(HEADS, (NOPE, VALUE), VALUE),
        ),
    ),
    hf_names=tuple(f"model.layers.{{i}}.mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")),
    names={"model.layers.{i}.mlp.gate.e_score_correction_bias": "blk.{i}.exp_probs_b.bias"},
    drops=(Drop("lm_head.weight", when=lambda config: config.find("tie_word_embeddings") is True),),
    # latent attention has shapes of its own
    shapes={
        role: sizes for role, sizes in DECODER_SHAPES.items() if not role.startswith("attn_") or role == "attn_norm"
    },
    drop_extra_layers=True,
)
