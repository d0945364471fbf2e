"""Lines of the metadata tables, and the tables that most families share.

A key without "general." or "tokenizer." in front is the architecture's own. Source: gguf-py's `Keys`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import MetadataLine
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import Value, ValueType

Lines: TypeAlias = Iterable[tuple[str, Value]]
log = logging.getLogger(__name__)

_FLOAT32_MAX = 3.4028234663852886e38

# Where a value comes from: a config key, or a function of the config.
Origin: TypeAlias = str | Callable[[Config], Any]


def u32(key: str, *origins: Origin) -> MetadataLine:
    """An unsigned number: of the first config key that is there, or of a function. None writes nothing."""

    def whole(number: Any) -> Value:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**32:
            raise TypeError
        return values.u32(number)

    return _line(key, whole, "a whole number from 0 to 2^32 - 1", origins)


def f32(key: str, *origins: Origin) -> MetadataLine:
    """A float, found like `u32` finds its number."""

    def real(number: Any) -> Value:
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= _FLOAT32_MAX:
            raise TypeError
        return values.f32(number)

    return _line(key, real, "a number that float32 holds", origins)


def flag(key: str, *origins: Origin) -> MetadataLine:
    """A truth value, found like `u32` finds its number."""

    def truth(value: Any) -> Value:
        if not isinstance(value, bool):
            raise TypeError
        return values.boolean(value)

    return _line(key, truth, "true or false", origins)


def text(key: str, *origins: Origin) -> MetadataLine:
    """A string, found like `u32` finds its number."""

    def word(value: Any) -> Value:
        if not isinstance(value, str):
            raise TypeError
        return values.string(value)

    return _line(key, word, "a string", origins)


def _line(key: str, make: Callable[[Any], Value], kind: str, origins: tuple[Origin, ...]) -> MetadataLine:
    def line(config: Config) -> Lines:
        computed = [origin for origin in origins if not isinstance(origin, str)]
        keys = [origin for origin in origins if isinstance(origin, str)]
        value = computed[0](config) if computed else config.find(*keys)
        if value is None:
            return
        try:
            yield key, make(value)
        except TypeError:
            named = " / ".join(keys) or key
            raise InputError(f"{named} is {value!r:.40}, not {kind}", file="config.json") from None

    return line


def file_type(config: Config) -> Lines:
    """The place of the file type among the keys; the recipe sets its value."""
    yield "general.file_type", values.u32(0)


def rope(*path: str, default: Any = None) -> Callable[[Config], Any]:
    """A rotary parameter by the first of several names."""
    return lambda config: next((config.rope[name] for name in path if name in config.rope), default)


def rope_scaling(config: Config) -> Lines:
    """How positions beyond the trained length are rotated."""
    kind = config.rope.get("rope_type")
    factor = config.rope.get("factor")
    if kind is None:
        return
    if not isinstance(kind, str):
        raise InputError(f"rope_type is {kind!r}, not a string", file="config.json")
    if kind in ("linear", "yarn") and factor is not None:
        yield "rope.scaling.type", values.string(kind)
        yield from f32("rope.scaling.factor", rope("factor"))(config)
    if kind == "yarn" and factor is not None:
        if "original_max_position_embeddings" not in config.rope:
            raise InputError("yarn needs original_max_position_embeddings", file="config.json")
        for line in YARN:
            yield from line(config)
    if kind in ("su", "longrope"):
        yield "rope.scaling.type", values.string("longrope")
    elif kind.lower() not in ("default", "linear", "yarn", "dynamic", "llama3", "mrope", "proportional"):
        log.warning("rope type %r is not known: nothing is written of it", kind)


YARN: tuple[MetadataLine, ...] = (
    u32("rope.scaling.original_context_length", rope("original_max_position_embeddings")),
    f32("rope.scaling.yarn_ext_factor", rope("extrapolation_factor")),
    f32("rope.scaling.yarn_attn_factor", rope("attention_factor", "attn_factor")),
    f32("rope.scaling.yarn_beta_fast", rope("beta_fast")),
    f32("rope.scaling.yarn_beta_slow", rope("beta_slow")),
)


def rope_sections(config: Config) -> Lines:
    """How many rotary dimensions belong to time, height, width and one more."""
    sections = config["rope_parameters"].get("mrope_section")
    if sections is None:
        return
    if not isinstance(sections, list) or not all(isinstance(n, int) for n in sections):
        raise InputError(f"mrope_section is {sections!r}, not a list of numbers", file="config.json")
    yield "rope.dimension_sections", values.array(ValueType.INT32, (*sections, 0, 0, 0, 0)[:4])


def rope_freq_base_swa(config: Config) -> Any:
    sliding = config["rope_parameters"].get("sliding_attention")
    return sliding.get("rope_theta") if isinstance(sliding, dict) else None


_GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}
_GATING_KEYS = (
    "score_function",
    "scoring_func",
    "score_func",
    "moe_router_activation",
    "moe_router_activation_func",
    "expert_selection_fn",
)


def expert_gating(config: Config) -> int | None:
    name = config.find(*_GATING_KEYS)
    if name is None:
        return None
    if not isinstance(name, str) or name not in _GATING:
        raise UnsupportedError(
            f"the expert scoring function {name!r} is not known", hint=f"known: {', '.join(_GATING)}"
        )
    return _GATING[name]


# What nearly every decoder writes, in the reference's order. Lines whose keys are absent write nothing.
DECODER: tuple[MetadataLine, ...] = (
    u32("block_count", lambda config: config.block_count),
    u32(
        "context_length",
        "max_position_embeddings",
        "n_ctx",
        "n_positions",
        "max_length",
        "max_sequence_length",
        "model_max_length",
    ),
    u32("embedding_length", "hidden_size", "n_embd", "dim"),
    u32(
        "feed_forward_length",
        "prefix_dense_intermediate_size",
        "dense_intermediate_size",
        "intermediate_size",
        "n_inner",
        "hidden_dim",
    ),
    u32("attention.head_count", "num_attention_heads", "n_head", "n_heads"),
    u32("attention.head_count_kv", "num_key_value_heads", "n_kv_heads"),
    flag("attention.causal", lambda config: False if config.find("is_causal") is False else None),
    rope_scaling,
    rope_sections,
    f32("rope.freq_base", rope("rope_theta")),
    f32("rope.freq_base_swa", rope_freq_base_swa),
    f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", "norm_eps"),
    f32("attention.layer_norm_epsilon", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    u32("expert_count", "num_local_experts", "num_experts", "n_routed_experts"),
    u32("expert_used_count", "num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
    u32("expert_group_count", "n_group"),
    u32("expert_group_used_count", "topk_group"),
    u32("expert_gating_func", expert_gating),
    u32("attention.key_length", "head_dim"),
    u32("attention.value_length", "head_dim"),
    file_type,
)
