"""GLM-5.3 Flash: delta attention (KDA) between layers of sparse latent attention, with hyper-connections."""

from __future__ import annotations

from gguf_forge.architectures.appended_layers import SOME_NEXTN, is_appended, with_appended_layers
from gguf_forge.architectures.completeness import HYPER
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.families.deepseek import LATENT, UNTIED, absorbed, feed_forward
from gguf_forge.architectures.families.deepseek32 import INDEXER_METADATA, INDEXER_TYPES
from gguf_forge.architectures.families.kimi_linear import CONVOLUTIONS, KDA, convolution, linear_attention
from gguf_forge.architectures.metadata import DECODER, HYPER_CONNECTIONS, SHARED_AND_SCALED, f32, flag, per_layer, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, chain, neg_exp, reshape
from gguf_forge.architectures.renames import WRAPPERS, ends
from gguf_forge.architectures.shapes import SHAPES_WITHOUT_ATTENTION
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tokenizer import glm
from gguf_forge.types.tensor_type import F32

_HEADS = "num_attention_heads"


def _without_head_dim(site: Site) -> Config:
    """Checks that llama.cpp's graph can compute the model. The config loses its head width, which differs by layer."""
    config = site.config
    if not config.find("mla_use_nope") or config.find("qk_rope_head_dim") != 0 or config.get("mhc", True) is not True:
        raise UnsupportedError(
            "only latent attention without rotation, with hyper-connections, is known", file="config.json"
        )
    if linear_attention("num_heads")(site) != config.find(_HEADS):
        raise InputError(f"linear_attn_config does not say {config.find(_HEADS)} heads", file="config.json")
    return config.without("head_dim")


def _is_linear(site: Site) -> bool:
    return not is_appended(site) and site.config.by_layer("layer_types")[site.layer or 0] == "linear_attention"


def _clamps(site: Site) -> list[object] | None:
    limit = site.config.find("swiglu_limit")
    return None if limit is None else [limit] * site.block_count


def _layer(site: Site) -> tuple[str, ...]:
    delta = ("attn_norm", *KDA, "ssm_g_a", "ssm_g_b", "attn_output", "ffn_norm")
    mixer = delta if _is_linear(site) else LATENT
    return (*mixer, *feed_forward(site), *(() if is_appended(site) else HYPER))


glm5_next = with_appended_layers(
    Architecture(
        "glm5-next",
        hf=("Glm5NextForConditionalGeneration",),
        metadata=(
            *DECODER,
            u32("attention.head_count_kv", per_layer(lambda site: int(not _is_linear(site)))),
            u32("vocab_size", "vocab_size"),
            f32("attention.layer_norm_epsilon", lambda site: 1e-6),
            SOME_NEXTN,
            u32("ssm.conv_kernel", linear_attention("short_conv_kernel_size")),
            u32("kda.head_dim", linear_attention("head_dim")),
            f32("kda.gate_lower_bound", linear_attention("gate_lower_bound")),
            u32("attention.q_lora_rank", "q_lora_rank"),
            u32("attention.kv_lora_rank", "kv_lora_rank"),
            u32("rope.dimension_count", "qk_rope_head_dim"),
            u32("attention.key_length", "kv_lora_rank"),
            u32("attention.value_length", "kv_lora_rank"),
            u32("attention.key_length_mla", "qk_nope_head_dim"),
            u32("attention.value_length_mla", "v_head_dim"),
            *INDEXER_METADATA,
            u32("attention.indexer.kpool", "index_kpool"),
            flag(
                "attention.indexer.kpool_select_tail",
                lambda site: site.config.get("index_kpool_always_select_tail", True),
            ),
            INDEXER_TYPES,
            *HYPER_CONNECTIONS,
            u32("leading_dense_block_count", "first_k_dense_replace"),
            u32("expert_feed_forward_length", "moe_intermediate_size"),
            *SHARED_AND_SCALED,
            f32("swiglu_clamp_exp", _clamps),
            f32("swiglu_clamp_shexp", _clamps),
        ),
        tokenizer=glm,
        renames=(*WRAPPERS, ends(".dt_bias", ".dt_proj.bias")),
        rules=(
            *MLP_EXPERTS,
            *absorbed(_HEADS),
        ),
        names={
            **{f"model.layers.{{i}}.{name}": f"blk.{{i}}.{name}.weight" for name in HYPER},
            **{
                f"model.layers.{{i}}.self_attn.indexer.index_kpool_compress_{name}": (
                    f"blk.{{i}}.indexer_compressor_{name}.weight"
                )
                for name in ("ape", "gate")
            },
        },
        operations={**dict.fromkeys(CONVOLUTIONS, convolution), "ssm_a": chain(reshape(-1), neg_exp)},
        drops=UNTIED,
        prepare=_without_head_dim,
        shapes=SHAPES_WITHOUT_ATTENTION,
        # Tensors that mix the streams, and the decays, keep their full precision.
        forced_types=dict.fromkeys(("hc_*", "indexer_compressor_*", "ssm_a", "ssm_dt"), lambda base: F32),
        layer_tensors=_layer,
    )
)
