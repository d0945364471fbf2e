"""Granite 4 and Bamba: layers of Mamba 2 and layers of attention; or of attention alone, which are plain Granite."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import ATTENTION, MAMBA2
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import MetadataLine
from gguf_forge.architectures.families.granite_moe import (
    DENSE_RULES,
    MOE_RULES,
    feed_forward,
    granite_moe,
    without_head_dim,
)
from gguf_forge.architectures.families.mamba import (
    CONTEXT,
    DT_BIAS,
    MAMBA2_OPERATIONS,
    mamba2,
)
from gguf_forge.architectures.metadata import flag, per_layer, u32
from gguf_forge.architectures.operations import reshape
from gguf_forge.architectures.renames import WRAPPERS
from gguf_forge.architectures.site import Site

_GROUPS = ("n_groups", "num_groups", "mamba_n_groups", "mamba_num_groups")
_STATE_HEADS = ("n_heads", "num_heads", "mamba_n_heads", "mamba_num_heads")
_KEY_HEADS = ("num_key_value_heads", "n_head_kv", "mamba_num_key_value_heads", "mamba_n_head_kv")


def _has_attention(site: Site) -> bool:
    """Whether the layer has attention: by the layers' kinds, by their numbers, or by a period."""
    config, layer = site.config, site.layer or 0
    if config.find("layer_types"):
        return config.listed("layer_types")[layer : layer + 1] == ["attention"]
    if config.find("attn_layer_indices"):
        return layer in config.listed("attn_layer_indices")
    return layer % config.integer("attn_layer_period") == config.integer("attn_layer_offset", minimum=0)


def _is_attention_alone(config: Config) -> bool:
    """Whether all layers have attention. The config may lack any key."""
    kinds, listed = config.find("layer_types"), config.find("attn_layer_indices")
    if isinstance(kinds, list) and kinds:
        return all(kind == "attention" for kind in kinds)
    if isinstance(listed, list) and listed:
        return bool(len(listed) == config.find("num_hidden_layers"))
    return bool(config.find("attn_layer_period") == 1)


def _key_heads(site: Site) -> int:
    return site.config.integer(*_KEY_HEADS) if _has_attention(site) else 0


def _inner_size(site: Site) -> int:
    width = site.config.integer("mamba_head_dim", "hidden_size", "d_model")
    return site.config.integer("expand", "num_heads", "mamba_expand", "mamba_num_heads") * width


def _rotates(site: Site) -> bool:
    classes = site.config.find("architectures")
    return (isinstance(classes, list) and "BambaForCausalLM" in classes) or _is_attention_alone(site.config)


_HYBRID_KEYS: tuple[MetadataLine, ...] = (
    u32("ssm.conv_kernel", "conv_kernel", "d_conv", "mamba_conv_kernel", "mamba_d_conv"),
    u32("ssm.state_size", "state_size", "d_state", "state_dim", "ssm_state_size", "mamba_d_state"),
    u32("ssm.group_count", *_GROUPS),
    u32("ssm.inner_size", _inner_size),
    u32("ssm.time_step_rank", lambda site: site.config.find(*_STATE_HEADS)),
    u32("rope.dimension_count", lambda site: site.config.find("attn_rotary_emb") or None),
    u32("attention.head_count_kv", per_layer(_key_heads)),
    flag("rope.scaling.finetuned", _rotates),
    u32("context_length", lambda site: None if _rotates(site) else CONTEXT),
)


def _rounding(multiple: int) -> Callable[[Site], Config]:
    """The config with the multiple that the vocabulary's size is rounded up to."""
    return lambda site: without_head_dim(site).updated(pad_vocab_size_multiple=multiple)


granite_hybrid = granite_moe.derive(
    "granitehybrid",
    hf=("GraniteMoeHybridForCausalLM", "BambaForCausalLM"),
    metadata=(*granite_moe.metadata, *_HYBRID_KEYS),
    tokenizer=mamba2.tokenizer,
    renames=(*WRAPPERS, DT_BIAS),
    rules=(*MOE_RULES, *DENSE_RULES),
    operations={**granite_moe.operations, **MAMBA2_OPERATIONS, "ssm_norm": reshape(_GROUPS, -1)},
    read_config=Config.raw,
    prepare=_rounding(8),
    layer_tensors=lambda site: (
        *(ATTENTION if _has_attention(site) else ("attn_norm", *MAMBA2)),
        *feed_forward(site),
    ),
)

granite_unmixed_moe = granite_hybrid.derive(
    "granitemoe",
    when=lambda config: _is_attention_alone(config) and bool(config.find("num_experts_per_tok")),
    rules=MOE_RULES,
    prepare=_rounding(1),
)

granite_unmixed = granite_hybrid.derive(
    "granite",
    when=lambda config: _is_attention_alone(config) and not config.find("num_experts_per_tok"),
    rules=DENSE_RULES,
    prepare=_rounding(1),
)
