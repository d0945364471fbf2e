"""Jamba: layers of Mamba, some layers of attention between them, and experts in every second layer."""

from __future__ import annotations

import re

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED, MAMBA
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.families.mamba import EPSILON, given, time_step_rank
from gguf_forge.architectures.metadata import f32, file_type, per_layer, u32
from gguf_forge.architectures.operations import DOWN_GATE_UP, experts, neg_exp, squeeze
from gguf_forge.architectures.renames import WRAPPERS, OneWay, Replacement
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import add_space_prefix, first_of, in_order, llama_hf, sentencepiece

_LONE_EXPERT = re.compile(r"model\.layers\.([0-9]{1,6})\.feed_forward\.experts\.0\.")


def _is_hit(site: Site, kind: str) -> bool:
    """Whether the layer's number is `offset` more than a multiple of `period`."""
    behind = (site.layer or 0) - site.config.integer(f"{kind}_layer_offset", minimum=0)
    return behind >= 0 and behind % site.config.integer(f"{kind}_layer_period") == 0


def _key_heads(site: Site) -> int:
    return site.config.integer("num_key_value_heads") if _is_hit(site, "attn") else 0


def _inner_size(site: Site) -> int:
    return site.config.integer("mamba_expand") * site.config.integer("hidden_size")


def _as_dense(name: str, site: Site) -> str:
    """Renames the tensors of a dense layer that a checkpoint stores as a layer with one expert."""
    found = _LONE_EXPERT.match(name)
    if found is None or _is_hit(site.at(int(found[1])), "expert"):
        return name
    return name.replace(".experts.0.", ".", 1)


jamba = Architecture(
    "jamba",
    hf=("JambaForCausalLM",),
    metadata=(
        u32("block_count", lambda site: site.block_count),
        u32("context_length", "max_position_embeddings", "n_ctx"),
        u32("embedding_length", "hidden_size"),
        u32("feed_forward_length", "intermediate_size"),
        u32("attention.head_count", "num_attention_heads"),
        u32("attention.head_count_kv", per_layer(_key_heads)),
        u32("ssm.conv_kernel", lambda site: given(site, 4, "mamba_d_conv")),
        u32("ssm.inner_size", _inner_size),
        u32("ssm.state_size", lambda site: given(site, 16, "mamba_d_state")),
        u32("ssm.time_step_rank", lambda site: time_step_rank(site, "mamba_dt_rank")),
        f32("attention.layer_norm_rms_epsilon", lambda site: given(site, 1e-6, *EPSILON)),
        u32("expert_count", "num_local_experts", "num_experts"),
        u32("expert_used_count", "num_experts_per_tok", "num_experts_per_token"),
        file_type,
    ),
    tokenizer=first_of(sentencepiece, in_order(llama_hf, add_space_prefix(False))),
    # Mini-Jamba has `moe` in its names.
    renames=(*WRAPPERS, Replacement(".moe.", ".feed_forward.", "inside", put_back=False), OneWay(_as_dense)),
    rules=experts("model.layers.{i}.feed_forward.experts.{e}", *DOWN_GATE_UP),
    operations={"ssm_a": neg_exp, "ssm_conv1d": squeeze},
    layer_tensors=lambda site: (
        *(ATTENTION if _is_hit(site, "attn") else ("attn_norm", *MAMBA, "ssm_dt_norm", "ssm_b_norm", "ssm_c_norm")),
        "ffn_norm",
        *(EXPERTS if _is_hit(site, "expert") else GATED),
    ),
)
