"""DeepSeek, its V2 and V3 with latent attention, and models of the same form: Kimi and Youtu."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Drop, Rule
from gguf_forge.architectures.families.llama import HEADS as QUERY_HEADS
from gguf_forge.architectures.families.llama import KEY_HEADS
from gguf_forge.architectures.metadata import DECODER, f32, flag, text, u32
from gguf_forge.architectures.operations import (
    MLP_EXPERTS,
    Number,
    by_head,
    chain,
    permute_rope,
    transpose,
)
from gguf_forge.architectures.shapes import SHAPES_WITHOUT_ATTENTION
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe, first_of, kimi, sentencepiece

NOPE, VALUE = "qk_nope_head_dim", "v_head_dim"


def dense_layers(site: Site) -> int:
    """The number of leading layers without experts."""
    if site.config.find("first_k_dense_replace") is not None:
        return site.config.integer("first_k_dense_replace", minimum=0)
    return site.config.block_count if site.config.find("n_routed_experts") is None else 0


def _latent_rank(site: Site) -> int:
    return site.config.integer("kv_lora_rank") if site.config.find("kv_lora_rank") is not None else 512


def _head_width(site: Site) -> int:
    return site.config.integer(NOPE) + site.config.integer("qk_rope_head_dim")


def _yarn_log_multiplier(site: Site) -> object:
    # The file has a tenth of the value. Readers of this architecture expect this, unlike those of others.
    parameters = site.config.part("rope_parameters")
    given = parameters.find("mscale_all_dim")
    return 0.1 * parameters.number("mscale_all_dim") if given else given


def feed_forward(site: Site) -> tuple[str, ...]:
    """The tensors of a layer after its attention."""
    return GATED if (site.layer or 0) < dense_layers(site) else EXPERTS


deepseek = Architecture(
    "deepseek",
    hf=("DeepseekForCausalLM",),
    metadata=(
        *DECODER,
        u32("rope.dimension_count", lambda site: site.config.head_dim),
        text("rope.scaling.type", lambda site: "none"),
        u32("leading_dense_block_count", "first_k_dense_replace"),
        u32("vocab_size", "vocab_size"),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        f32("expert_weights_scale", lambda site: 1.0),
        u32("expert_count", "n_routed_experts"),
        u32("expert_shared_count", "n_shared_experts"),
    ),
    tokenizer=first_of(sentencepiece, bpe),
    rules=MLP_EXPERTS,
    operations={"attn_q": permute_rope(QUERY_HEADS), "attn_k": permute_rope(KEY_HEADS)},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *feed_forward(site)),
)

EXPERT_METADATA = (
    u32("expert_feed_forward_length", "moe_intermediate_size", "intermediate_size"),
    u32("expert_count", "n_routed_experts"),
    u32("expert_shared_count", lambda site: site.config.get("n_shared_experts", 0)),
    f32("expert_weights_scale", "routed_scaling_factor"),
    flag("expert_weights_norm", lambda site: site.config.find("norm_topk_prob") or None),
    u32("rope.dimension_count", "qk_rope_head_dim"),
)


def with_epsilon(site: Site) -> Config:
    return site.config.updated(rms_norm_eps=site.config.get("rms_norm_eps", 1e-6))


def absorbed(heads: Number, nope: Number = NOPE, value: Number = VALUE, module: str = "self_attn") -> tuple[Rule, Rule]:
    """Rules that split kv_b for latent attention.

    llama.cpp multiplies the queries with the keys' part of kv_b, so this part is stored transposed.
    """
    source = (f"model.layers.{{i}}.{module}.kv_b_proj.weight",)
    return (
        Rule(source, "blk.{i}.attn_k_b.weight", chain(by_head(heads, (nope, value), 0), transpose)),
        Rule(source, "blk.{i}.attn_v_b.weight", by_head(heads, (nope, value), 1)),
    )


# The tensors of a layer with latent attention, except its feed-forward part.
LATENT = ("attn_norm", "attn_q|attn_q_b", "attn_kv_a_mqa", "attn_k_b", "attn_v_b", "attn_output", "ffn_norm")

UNTIED = tuple(
    Drop(name, when=lambda site: site.config.find("tie_word_embeddings") is True)
    for name in ("lm_head.weight", "model.lm_head.weight")
)

deepseek2 = Architecture(
    "deepseek2",
    hf=(
        *("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "YoutuForCausalLM", "YoutuVLForConditionalGeneration"),
        *("KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration"),
    ),
    metadata=(
        *DECODER,
        # Latent attention has one key/value head, which is as wide as the latent vector.
        u32("attention.head_count_kv", lambda site: 1),
        u32("leading_dense_block_count", dense_layers),
        u32("vocab_size", "vocab_size"),
        u32("attention.q_lora_rank", "q_lora_rank"),
        u32("attention.kv_lora_rank", _latent_rank),
        u32(
            "attention.key_length", lambda site: _latent_rank(site) + site.config.integer("qk_rope_head_dim", minimum=0)
        ),
        u32("attention.value_length", _latent_rank),
        u32("attention.key_length_mla", _head_width),
        u32("attention.value_length_mla", VALUE),
        *EXPERT_METADATA,
        f32("rope.scaling.yarn_log_multiplier", _yarn_log_multiplier),
    ),
    tokenizer=first_of(bpe, kimi),
    prepare=with_epsilon,
    rules=(*MLP_EXPERTS, *absorbed("num_key_value_heads")),
    drops=UNTIED,
    shapes=SHAPES_WITHOUT_ATTENTION,
    drop_extra_layers=True,
    layer_tensors=lambda site: (*LATENT, *feed_forward(site)),
)
