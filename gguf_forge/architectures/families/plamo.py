"""PLaMo, PLaMo 2 with layers of Mamba, and PLaMo 3."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import DENSE
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, Lines, f32, file_type, flag, per_layer, rope, u32
from gguf_forge.architectures.operations import add, neg_exp, reorder, squeeze
from gguf_forge.architectures.renames import WRAPPERS, ends
from gguf_forge.architectures.shapes import DECODER_SHAPES, hidden, inner
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import plamo as plamo_vocabulary
from gguf_forge.tokenizer import plamo3 as plamo3_vocabulary
from gguf_forge.tokenizer import sentencepiece

# The only published model has this number of query heads per key head. Its config lacks it.
_KEY_HEADS, _SHARED = 5, 8

plamo = Architecture(
    "plamo",
    hf=("PlamoForCausalLM",),
    metadata=(
        u32("context_length", lambda site: 4096),
        u32("embedding_length", "hidden_size"),
        u32("feed_forward_length", "intermediate_size"),
        u32("block_count", lambda site: site.block_count),
        u32("attention.head_count", "num_attention_heads"),
        u32("attention.head_count_kv", lambda site: _KEY_HEADS),
        f32("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        file_type,
    ),
    tokenizer=sentencepiece,
    # ggml repeats each key head as a whole.
    operations={
        "attn_q": reorder(-2, (_SHARED, _KEY_HEADS, -1), (1, 0, 2), "heads of one key side by side"),
        "attn_output": reorder(-1, (_SHARED, _KEY_HEADS, -1), (1, 0, 2), "heads of one key side by side"),
    },
    shapes={role: sizes for role, sizes in DECODER_SHAPES.items() if role not in ("attn_k", "attn_v")},
    layer_tensors=lambda site: ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", *DENSE),
)

_FUSED_SHAPES = {
    "token_embd": (None, hidden),
    "ffn_up": (lambda site: 2 * inner(site), hidden),
    "ffn_down": (hidden, inner),
}

# Norms multiply by the sum of an offset and the weight. The offset is less than 1 for norms after a part of a layer.
_NORMS = {
    "attn_norm": add(1),
    "post_attention_norm": add(1 / 5),
    "ffn_norm": add(1),
    "post_ffw_norm": add(1 / 5**1.5),
    "output_norm": add(1),
}
_AROUND = ("attn_norm", "post_attention_norm", "ffn_norm", *DENSE, "post_ffw_norm")


def _has_attention(site: Site) -> bool:
    """Whether a layer has attention: every `mamba_step`-th one, or the last one if there are too few layers."""
    config, layer = site.config, site.layer or 0
    if not config.get("mamba_enabled", True):
        return True
    step = config.integer("mamba_step") if "mamba_step" in config else 2
    if site.block_count <= step // 2:
        return layer == site.block_count - 1
    return layer % step == step // 2


def _heads(key: str, default: int) -> Callable[[Site], list[object] | None]:
    def of_layer(site: Site) -> object:
        return site.config.get(key, default) if _has_attention(site) else 0

    def of_all(site: Site) -> list[object] | None:
        return per_layer(of_layer)(site) if site.config.get("mamba_enabled", True) else None

    return of_all


def _given(key: str, default: object) -> Callable[[Site], object]:
    return lambda site: site.config.get(key, default)


def _inner_size(site: Site) -> int:
    heads = site.config.integer("mamba_num_heads", minimum=0, default=64)
    return heads * site.config.integer("hidden_size_per_head", default=128)


_STATE_SPACE = (
    *("ssm_in", "ssm_conv1d", "ssm_x", "ssm_dt", "ssm_a", "ssm_d", "ssm_out"),
    *("ssm_dt_norm", "ssm_b_norm", "ssm_c_norm"),
)

plamo2 = Architecture(
    "plamo2",
    hf=("Plamo2ForCausalLM", "PLaMo2ForCausalLM"),
    metadata=(
        u32("vocab_size", "vocab_size"),
        u32("attention.head_count_kv", _heads("num_key_value_heads", 4)),
        u32("attention.head_count", _heads("num_attention_heads", 32)),
        u32("context_length", _given("max_position_embeddings", 2048)),
        u32("embedding_length", _given("hidden_size", 4096)),
        u32("attention.key_length", _given("hidden_size_per_head", 128)),
        u32("attention.value_length", _given("hidden_size_per_head", 128)),
        u32("block_count", lambda site: site.block_count),
        f32("attention.layer_norm_rms_epsilon", _given("rms_norm_eps", 1e-6)),
        f32("rope.freq_base", rope("rope_theta", default=10000)),
        u32("ssm.state_size", _given("mamba_d_state", 64)),
        u32("ssm.conv_kernel", _given("mamba_d_conv", 4)),
        u32("ssm.time_step_rank", _given("mamba_num_heads", 64)),
        u32("ssm.inner_size", _inner_size),
        u32("ssm.group_count", lambda site: 0),
        u32("feed_forward_length", _given("intermediate_size", 13312)),
        file_type,
    ),
    tokenizer=plamo_vocabulary,
    renames=(
        *WRAPPERS,
        ends(".dt_bias", ".dt_proj.bias"),
        *(ends(f".{name}_norm_weight", f".{name}_norm.weight") for name in ("dt", "B", "C")),
        *(ends(f".{name}_weight", f".{name}.weight") for name in "kq"),
    ),
    operations={**_NORMS, "ssm_a": neg_exp, "ssm_conv1d": squeeze},
    shapes=_FUSED_SHAPES,
    layer_tensors=lambda site: (
        *(("attn_qkv", "attn_q_norm", "attn_k_norm", "attn_output") if _has_attention(site) else _STATE_SPACE),
        *_AROUND,
    ),
)


def _with_yarn(site: Site) -> Config:
    """The config with its scaling factor as that of YaRN, because these models use YaRN."""
    config = site.config
    parameters = config.part("rope_parameters")
    if config.find("rope_scaling_factor") in (None, 1) or "rope_type" in parameters:
        return config
    yarn = {
        "rope_type": "yarn",
        "factor": config.number("rope_scaling_factor"),
        "original_max_position_embeddings": config.integer("initial_context_length"),
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    }
    return config.updated(rope_parameters={**parameters, **yarn})


def _window(site: Site) -> Lines:
    if site.config.find("window_size", "sliding_window") is None:
        return
    yield from u32("attention.sliding_window", "window_size", "sliding_window")(site)
    line = flag if isinstance(site.config.find("sliding_window_pattern"), list) else u32
    yield from line("attention.sliding_window_pattern", "sliding_window_pattern")(site)


plamo3 = Architecture(
    "plamo3",
    hf=("Plamo3ForCausalLM", "PLaMo3ForCausalLM"),
    metadata=(*DECODER, u32("vocab_size", "vocab_size"), _window),
    tokenizer=plamo3_vocabulary,
    operations={**_NORMS, "attn_q_norm": add(1), "attn_k_norm": add(1)},
    prepare=_with_yarn,
    shapes=_FUSED_SHAPES,
    layer_tensors=lambda site: ("attn_qkv", "attn_q_norm", "attn_k_norm", "attn_output", *_AROUND),
)
