"""MiMo V2: attention within windows and without, sinks, experts, and three layers that predict further tokens."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.architectures.appended_layers import is_appended, with_appended_layers
from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import DECODER, f32, u32
from gguf_forge.architectures.operations import GATE_UP_DOWN, MLP_EXPERTS, experts
from gguf_forge.architectures.renames import WRAPPERS, Appended, ends
from gguf_forge.architectures.shapes import SHAPES_WITHOUT_ATTENTION
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import concat
from gguf_forge.tensors.row_maps import Reshape, Slice, length, reshaped
from gguf_forge.tokenizer import bpe

# The number of layers that predict further tokens in all released models. Their configs lack it.
_PREDICTING = 3


def _predicting(site: Site) -> int:
    return 0 if "no_mtp" in site.choices else _PREDICTING


def _slides(site: Site) -> list[object]:
    """1 for each layer that attends within the window, also for those that predict further tokens."""
    return [*site.config.by_layer("hybrid_layer_pattern"), *[1] * _predicting(site)]


def _key_heads(site: Site) -> list[int]:
    for key in ("head_dim", "num_attention_heads", "v_head_dim"):
        if site.config.find(f"swa_{key}") != site.config.find(key):
            raise UnsupportedError(f"swa_{key} is not {key}, which llama.cpp does not know", file="config.json")
    full, sliding = site.config.integer("num_key_value_heads"), site.config.integer("swa_num_key_value_heads")
    return [sliding if slides == 1 else full for slides in _slides(site)]


def _rotated(site: Site) -> int:
    return int(site.config.head_dim * site.config.rope_number("partial_rotary_factor"))


def _has_experts(site: Site) -> bool:
    """Which layers have experts: `moe_layer_freq` has a 1 for each."""
    listed, layer = site.config.find("moe_layer_freq"), site.layer or 0
    if isinstance(listed, list) and layer < len(listed):
        return bool(listed[layer] == 1)
    return not is_appended(site)


def _is_packed(site: Site) -> bool:
    """Whether the experts are stored in MXFP4."""
    quantization = site.config.find("quantization_config")
    return isinstance(quantization, dict) and quantization.get("store_dtype") == "mxfp4"


def _shards(x: TensorExpr) -> int:
    """The number of shards that an FP8 matrix was trained in; 1 for other types. Blocks start anew in each shard."""
    if isinstance(x, Reshape) and isinstance(x.of, Scaled):
        return x.of.scales.shape[0]
    if not isinstance(x, Scaled):
        return 1
    n_rows, blocks = length(x, 0), x.scales.shape[0]
    found = (n for n in (8, 4) if n_rows % n == 0 and blocks == n * -(-(n_rows // n) // x.row_block))
    count = next(found, None)
    if count is None:
        raise InputError(f"{blocks} rows of scales are not those of 8 or 4 shards of {n_rows} rows")
    return count


def _ungrouped(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Joins the queries, the keys and the values of all shards. Each stored shard has a part of all three."""
    (x,) = sources
    count = _shards(x)
    if count == 1:
        return x
    heads, key_heads = site.config.integer("num_attention_heads"), _key_heads(site)[site.layer or 0]
    width, value_width = site.config.integer("head_dim"), site.config.integer("v_head_dim")
    wholes = (heads * width, key_heads * width, key_heads * value_width)
    if sum(wholes) != length(x, 0) or any(rows % count for rows in wholes):
        raise InputError(f"{length(x, 0)} rows are not {wholes} of queries, keys and values in {count} shards")
    sizes = [rows // count for rows in wholes]
    shards = reshaped(x, (count, sum(sizes), length(x, 1)))
    starts = (0, sizes[0], sizes[0] + sizes[1])
    parts = (Slice(shards, -2, start, start + size) for start, size in zip(starts, sizes, strict=True))
    return concat(tuple(reshaped(part, (count * length(part, -2), length(x, 1))) for part in parts))


_EXPERTS = experts("model.layers.{i}.mlp.experts.{e}", *GATE_UP_DOWN)

mimo2 = with_appended_layers(
    Architecture(
        "mimo2",
        hf=("MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"),
        metadata=(
            *DECODER,
            u32("attention.head_count_kv", _key_heads),
            u32("attention.sliding_window", "sliding_window"),
            u32("attention.sliding_window_pattern", _slides),
            u32("attention.value_length", "v_head_dim"),
            u32("expert_count", "n_routed_experts"),
            u32("expert_feed_forward_length", "moe_intermediate_size"),
            u32("rope.dimension_count", _rotated),
            f32("attention.layer_norm_rms_epsilon", lambda site: site.config.get("layernorm_epsilon", 1e-5)),
            f32("attention.value_scale", "attention_value_scale"),
            u32("nextn_predict_layers", lambda site: _predicting(site) or None),
        ),
        tokenizer=bpe,
        renames=(
            *WRAPPERS,
            Appended("model.mtp.layers.{i}."),
            ends("attention_sink_bias", "attention_sink_bias.weight"),
        ),
        rules=(
            *(replace(rule, when=lambda site: not _is_packed(site)) for rule in _EXPERTS),
            *(replace(rule, after="", when=_is_packed, first=1) for rule in MLP_EXPERTS),
            Rule(("model.layers.{i}.self_attn.qkv_proj.weight",), "blk.{i}.attn_qkv.weight", _ungrouped),
        ),
        shapes=SHAPES_WITHOUT_ATTENTION,
        layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *(EXPERTS if _has_experts(site) else GATED)),
    ),
    _predicting,
)
