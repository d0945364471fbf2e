"""DeepSeek V3.2, GLM-5 and GLM-4.7 Flash: V3 with layers that predict further tokens, and sparse attention."""

from __future__ import annotations

from gguf_forge.architectures.appended_layers import NEXTN_COUNT, SOME_NEXTN, with_appended_layers
from gguf_forge.architectures.declaration import MetadataLine
from gguf_forge.architectures.families.deepseek import LATENT, deepseek2, feed_forward
from gguf_forge.architectures.metadata import flag, u32
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe, glm

# Keys of the indexer, which chooses the tokens that a layer attends to.
INDEXER_METADATA: tuple[MetadataLine, ...] = (
    u32("attention.indexer.head_count", "index_n_heads"),
    u32("attention.indexer.key_length", "index_head_dim"),
    u32("attention.indexer.top_k", "index_topk"),
)
INDEXER = tuple(f"indexer.{name}" for name in ("attn_q_b", "attn_k", "k_norm", "proj"))


def full_indexers(site: Site) -> list[bool] | None:
    """For each layer, whether it has its own indexer. The others use the indexer of an earlier layer."""
    if site.config.find("indexer_types") is None:
        return None
    return [kind == "full" for kind in site.config.listed("indexer_types")]


INDEXER_TYPES = flag("attention.indexer.types", full_indexers)


glm4_moe_lite = with_appended_layers(deepseek2).derive(
    "deepseek2",
    hf=("Glm4MoeLiteForCausalLM",),
    metadata=(*deepseek2.metadata, SOME_NEXTN),
    tokenizer=glm,
)

deepseek32 = with_appended_layers(
    deepseek2.derive(
        "deepseek32",
        hf=("DeepseekV32ForCausalLM",),
        metadata=(*deepseek2.metadata, NEXTN_COUNT, *INDEXER_METADATA),
        tokenizer=bpe,
        layer_tensors=lambda site: (*LATENT, *feed_forward(site), *INDEXER),
    )
)


def _rotated(site: Site) -> int:
    return int(site.config.integer("qk_rope_head_dim") * site.config.rope_number("partial_rotary_factor", 1.0))


glm_dsa = glm4_moe_lite.derive(
    "glm-dsa",
    hf=("GlmMoeDsaForCausalLM",),
    metadata=(
        *deepseek2.metadata,
        u32("rope.dimension_count", _rotated),
        NEXTN_COUNT,
        *INDEXER_METADATA,
        INDEXER_TYPES,
    ),
    tokenizer=glm,
)
