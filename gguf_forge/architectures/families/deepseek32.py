"""DeepSeek V3.2, GLM-5 and GLM-4.7 Flash: V3 with layers that predict further tokens, and sparse attention."""

from __future__ import annotations

from gguf_forge.architectures.appended_layers import (
    CHOICES,
    LEFT_OUT_LAYERS,
    NEXTN,
    NEXTN_COUNT,
    SOME_NEXTN,
    is_appended,
    is_left_out,
    with_counted_layers,
)
from gguf_forge.architectures.declaration import MetadataLine
from gguf_forge.architectures.families.deepseek import LATENT, deepseek2, feed_forward
from gguf_forge.architectures.metadata import flag, u32
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
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
    types = site.config.find("indexer_types")
    if types is None:
        return None
    if not isinstance(types, list):
        raise InputError(f"indexer_types is {types!r:.40}, not a list", file="config.json")
    return [kind == "full" for kind in types]


INDEXER_TYPES = flag("attention.indexer.types", full_indexers)


def _sparse_layer(site: Site) -> tuple[str, ...]:
    if is_left_out(site):
        return ()
    return (*LATENT, *feed_forward(site), *(NEXTN if is_appended(site) else ()))


glm4_moe_lite = deepseek2.derive(
    "deepseek2",
    hf=("Glm4MoeLiteForCausalLM",),
    metadata=(*deepseek2.metadata, SOME_NEXTN),
    tokenizer=glm,
    drops=(*deepseek2.drops, LEFT_OUT_LAYERS),
    choices=CHOICES,
    block_count=with_counted_layers,
    drop_extra_layers=False,
    layer_tensors=_sparse_layer,
)

deepseek32 = glm4_moe_lite.derive(
    "deepseek32",
    hf=("DeepseekV32ForCausalLM",),
    metadata=(*deepseek2.metadata, NEXTN_COUNT, *INDEXER_METADATA),
    tokenizer=bpe,
    layer_tensors=lambda site: (*_sparse_layer(site), *(() if is_left_out(site) else INDEXER)),
)


def _rotated(site: Site) -> int:
    return int(site.config.integer("qk_rope_head_dim") * site.config.rope_number("partial_rotary_factor", 1.0))


glm_dsa = deepseek32.derive(
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
    layer_tensors=_sparse_layer,
)
