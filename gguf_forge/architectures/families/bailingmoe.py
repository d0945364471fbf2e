"""BailingMoE (Ling), its second version, and Sarvam, which is the second version with another router."""

from __future__ import annotations

from gguf_forge.architectures.appended_layers import NEXTN, NEXTN_COUNT, is_appended, with_counted_layers
from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, center, chain, cut, permute_rope
from gguf_forge.architectures.renames import WRAPPERS, ends
from gguf_forge.architectures.shapes import heads, key_heads, keys, queries
from gguf_forge.architectures.site import Site
from gguf_forge.errors import UnsupportedError
from gguf_forge.tokenizer import bpe

_QKV = "model.layers.{i}.attention.query_key_value.weight"


def _is_dense(site: Site) -> bool:
    return (site.layer or 0) < site.config.integer("first_k_dense_replace", minimum=0)


def _feed_forward(site: Site) -> tuple[str, ...]:
    return ("ffn_norm", *(GATED if _is_dense(site) else EXPERTS))


def _end_of_keys(site: Site) -> int:
    return queries(site) + keys(site)


def _with_plain_head(site: Site) -> Config:
    if site.config.find("norm_head"):
        raise UnsupportedError("norm_head, which divides the output by its columns' norms, is not supported yet")
    return site.config


bailingmoe = Architecture(
    "bailingmoe",
    hf=("BailingMoeForCausalLM",),
    metadata=(
        *DECODER,
        u32("rope.dimension_count", lambda site: site.config.head_dim),
        u32("leading_dense_block_count", "first_k_dense_replace"),
        u32("vocab_size", "vocab_size"),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        f32("expert_weights_scale", lambda site: 1.0),
        u32("expert_shared_count", "num_shared_experts"),
        flag("expert_weights_norm", "norm_topk_prob"),
    ),
    tokenizer=bpe,
    rules=(
        Rule((_QKV,), "blk.{i}.attn_q.weight", chain(cut(-2, 0, queries), permute_rope(heads))),
        Rule((_QKV,), "blk.{i}.attn_k.weight", chain(cut(-2, queries, _end_of_keys), permute_rope(key_heads))),
        Rule((_QKV,), "blk.{i}.attn_v.weight", cut(-2, _end_of_keys)),
        *MLP_EXPERTS,
    ),
    prepare=_with_plain_head,
    layer_tensors=lambda site: (*ATTENTION, *_feed_forward(site)),
)


def _rotated(site: Site) -> int:
    return int(site.config.head_dim * site.config.rope_number("partial_rotary_factor", 0.5))


def _shared_length(site: Site) -> object:
    length = site.config.find("moe_shared_expert_intermediate_size")
    if length is not None:
        return length
    return site.config.integer("moe_intermediate_size") * site.config.integer("num_shared_experts")


def _block(site: Site) -> tuple[str, ...]:
    return (
        *("attn_norm", "attn_qkv", "attn_output", "attn_q_norm", "attn_k_norm", *_feed_forward(site)),
        *(NEXTN if is_appended(site) else ()),
    )


bailingmoe2 = Architecture(
    "bailingmoe2",
    hf=("BailingMoeV2ForCausalLM",),
    metadata=(
        *DECODER,
        u32("rope.dimension_count", _rotated),
        u32("leading_dense_block_count", "first_k_dense_replace"),
        u32("vocab_size", "vocab_size"),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("expert_shared_feed_forward_length", _shared_length),
        f32("expert_weights_scale", "routed_scaling_factor"),
        u32("expert_shared_count", "num_shared_experts"),
        flag("expert_weights_norm", "norm_topk_prob"),
        NEXTN_COUNT,
    ),
    tokenizer=bpe,
    renames=(*WRAPPERS, ends(".expert_bias", ".expert_bias.bias")),
    rules=MLP_EXPERTS,
    block_count=with_counted_layers,
    layer_tensors=_block,
)

sarvam = bailingmoe2.derive(
    "bailingmoe2",
    hf=("SarvamMoEForCausalLM", "modeling_sarvam_moe.SarvamMoEForCausalLM"),
    metadata=(*bailingmoe2.metadata, u32("rope.dimension_count", lambda site: site.config.head_dim)),
    # The bias of the experts' scores is shifted so that its mean is 0.
    operations={"exp_probs_b": center},
)
