"""GLM-5.3 Flash: delta attention (KDA) between layers of sparse latent attention, with hyper-connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gguf_forge.architectures.appended_layers import (
    CHOICES,
    LEFT_OUT_LAYERS,
    NEXTN,
    SOME_NEXTN,
    is_appended,
    is_left_out,
    with_counted_layers,
)
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.families.deepseek import LATENT, LATENT_SHAPES, UNTIED, absorbed, feed_forward
from gguf_forge.architectures.families.deepseek32 import INDEXER_METADATA, INDEXER_TYPES
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, chain, neg_exp, reshape
from gguf_forge.architectures.renames import WRAPPERS, ends
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import length, reshaped
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
    return Config({key: value for key, value in config.items() if key != "head_dim"})


def _linear(key: str) -> Callable[[Site], Any]:
    """A number of the layers with delta attention."""

    def number(site: Site) -> Any:
        found = site.config.find("linear_attn_config")
        if not isinstance(found, dict) or found.get("num_heads") != site.config.find(_HEADS):
            raise InputError(f"linear_attn_config does not say {site.config.find(_HEADS)} heads", file="config.json")
        return found.get(key)

    return number


def _is_linear(site: Site) -> bool:
    kinds, own = site.config.find("layer_types"), site.config.block_count
    if not isinstance(kinds, list) or len(kinds) != own:
        raise InputError(f"layer_types is not a list of {own} layers", file="config.json")
    return not is_appended(site) and kinds[site.layer or 0] == "linear_attention"


def _key_heads(site: Site) -> list[int]:
    return [0 if _is_linear(site.at(layer)) else 1 for layer in range(site.block_count)]


def _clamps(site: Site) -> list[float] | None:
    limit = site.config.find("swiglu_limit")
    return None if limit is None else [limit] * site.block_count


def _as_kernel(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """The kernels of a convolution by channel, with the four axes of ggml's convolutions."""
    (x,) = sources
    return reshaped(x, (1, x.n_rows, 1, length(x, -1)))


_HYPER = tuple(f"hc_{part}_{name}" for part in ("attn", "ffn") for name in ("fn", "base", "scale"))
_DELTA = (
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm"),
    *(f"ssm_conv1d_{part}" for part in "qkv"),
    *("ssm_f_a", "ssm_f_b", "ssm_beta", "ssm_a", "ssm_dt", "ssm_g_a", "ssm_g_b", "ssm_norm"),
)


def _layer(site: Site) -> tuple[str, ...]:
    if is_left_out(site):
        return ()
    mixer = _DELTA if _is_linear(site) else LATENT
    return (*mixer, *feed_forward(site), *(NEXTN if is_appended(site) else _HYPER))


glm5_next = Architecture(
    "glm5-next",
    hf=("Glm5NextForConditionalGeneration",),
    metadata=(
        *DECODER,
        u32("attention.head_count_kv", _key_heads),
        u32("vocab_size", "vocab_size"),
        f32("attention.layer_norm_epsilon", lambda site: 1e-6),
        SOME_NEXTN,
        u32("ssm.conv_kernel", _linear("short_conv_kernel_size")),
        u32("kda.head_dim", _linear("head_dim")),
        f32("kda.gate_lower_bound", _linear("gate_lower_bound")),
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
            "attention.indexer.kpool_select_tail", lambda site: site.config.get("index_kpool_always_select_tail", True)
        ),
        INDEXER_TYPES,
        u32("hyper_connection.count", "hc_mult"),
        u32("hyper_connection.sinkhorn_iterations", "hc_sinkhorn_iters"),
        f32("hyper_connection.epsilon", "hc_eps"),
        u32("leading_dense_block_count", "first_k_dense_replace"),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("expert_shared_count", "n_shared_experts"),
        f32("expert_weights_scale", "routed_scaling_factor"),
        flag("expert_weights_norm", "norm_topk_prob"),
        f32("swiglu_clamp_exp", _clamps),
        f32("swiglu_clamp_shexp", _clamps),
    ),
    tokenizer=glm,
    renames=(*WRAPPERS, ends(".dt_bias", ".dt_proj.bias")),
    rules=(
        *MLP_EXPERTS,
        *absorbed(_HEADS),
        *(
            Rule(
                (f"model.layers.{{i}}.self_attn.{part}_conv1d.weight",),
                f"blk.{{i}}.ssm_conv1d_{part}.weight",
                _as_kernel,
            )
            for part in "qkv"
        ),
    ),
    names={
        **{f"model.layers.{{i}}.{name}": f"blk.{{i}}.{name}.weight" for name in _HYPER},
        **{
            f"model.layers.{{i}}.self_attn.indexer.index_kpool_compress_{name}": (
                f"blk.{{i}}.indexer_compressor_{name}.weight"
            )
            for name in ("ape", "gate")
        },
    },
    operations={"ssm_a": chain(reshape(-1), neg_exp)},
    drops=(*UNTIED, LEFT_OUT_LAYERS),
    prepare=_without_head_dim,
    choices=CHOICES,
    block_count=with_counted_layers,
    shapes=LATENT_SHAPES,
    # Tensors that mix the streams, and the decays, keep their full precision.
    forced_types=dict.fromkeys(("hc_*", "indexer_compressor_*", "ssm_a", "ssm_dt"), lambda base: F32),
    layer_tensors=_layer,
)
