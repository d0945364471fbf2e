"""Lines of the metadata tables, and the tables that most families share.

A key without "general.", "tokenizer." or "adapter." in front is the architecture's own. Source: gguf-py's `Keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from gguf_forge.architectures.declaration import MetadataLine
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import Value, ValueType
from gguf_forge.wording import log_of

Lines: TypeAlias = Iterable[tuple[str, Value]]
log = log_of(__name__)

_FLOAT32_MAX = 3.4028234663852886e38

# Where a value comes from: a config key, or a function of the site.
Origin: TypeAlias = str | Callable[[Site], object]


def u32(key: str, *origins: Origin) -> MetadataLine:
    """An unsigned number, from the first config key that exists or from a function. None writes nothing.

    A list is written as an array. The reference's converter does this with numbers that differ from layer to layer.
    """

    def whole(number: object) -> Value:
        if isinstance(number, list | tuple):
            return values.array(ValueType.INT32, tuple(_whole(each, -(2**31), 2**31) for each in number))
        return values.u32(_whole(number, 0, 2**32))

    return Line(key, whole, "a whole number from 0 to 2^32 - 1", origins)


def _whole(number: object, first: int, stop: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not first <= number < stop:
        raise TypeError
    return number


def _real(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= _FLOAT32_MAX:
        raise TypeError
    return number


def per_layer(value: Callable[[Site], object]) -> Callable[[Site], list[object]]:
    """A list with a value for each layer, as hybrid models need: `u32("attention.head_count_kv", per_layer(...))`."""
    return lambda site: [value(site.at(layer)) for layer in range(site.block_count)]


def f32(key: str, *origins: Origin) -> MetadataLine:
    """A float or an array of floats, found like `u32` finds its number."""

    def real(number: object) -> Value:
        if isinstance(number, list | tuple):
            return values.array(ValueType.FLOAT32, tuple(map(_real, number)))
        return values.f32(_real(number))

    return Line(key, real, "a number that float32 holds", origins)


def flag(key: str, *origins: Origin) -> MetadataLine:
    """A truth value or an array of them, found like `u32` finds its number."""

    def truth(value: object) -> Value:
        if isinstance(value, list | tuple) and all(isinstance(each, bool) for each in value):
            return values.array(ValueType.BOOL, tuple(value))
        if not isinstance(value, bool):
            raise TypeError
        return values.boolean(value)

    return Line(key, truth, "true or false", origins)


def text(key: str, *origins: Origin) -> MetadataLine:
    """A string or an array of strings, found like `u32` finds its number."""

    def word(value: object) -> Value:
        if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
            return values.array(ValueType.STRING, tuple(value))
        if not isinstance(value, str):
            raise TypeError
        return values.string(value)

    return Line(key, word, "a string", origins)


@dataclass(frozen=True)
class Line:
    """One key of the table.

    Attributes:
        key: Its name, without the architecture.
        make: Makes the typed value from a number, truth value, string or list; TypeError if the value does not fit.
        kind: The values that `make` accepts, in words for messages.
        origins: The config keys or functions that the value comes from.
    """

    key: str
    make: Callable[[object], Value]
    kind: str
    origins: tuple[Origin, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The config keys that may hold the value."""
        return tuple(origin for origin in self.origins if isinstance(origin, str))

    def __call__(self, site: Site) -> Lines:
        computed = [origin for origin in self.origins if not isinstance(origin, str)]
        value = computed[0](site) if computed else site.config.find(*self.keys)
        if value is None:
            return
        try:
            yield self.key, self.make(value)
        except TypeError:
            named = " / ".join(self.keys) or self.key
            raise InputError(f"{named} is {value!r:.40}, not {self.kind}", file="config.json") from None


def file_type(site: Site) -> Lines:
    """A placeholder for the file type, which fixes its place among the keys. The recipe sets its value."""
    yield "general.file_type", values.u32(0)


def rope(*path: str, default: object = None) -> Callable[[Site], object]:
    """A rotary parameter by the first of several names."""
    return lambda site: next((site.config.rope[name] for name in path if name in site.config.rope), default)


def rope_scaling(site: Site) -> Lines:
    """The keys of rotary scaling, which is for positions beyond the trained length."""
    kind = site.config.rope.get("rope_type")
    factor = site.config.rope.get("factor")
    if kind is None:
        return
    if not isinstance(kind, str):
        raise InputError(f"rope_type is {kind!r:.40}, not a string", file="config.json")
    if kind in ("linear", "yarn") and factor is not None:
        yield "rope.scaling.type", values.string(kind)
        yield from f32("rope.scaling.factor", rope("factor"))(site)
    if kind == "yarn" and factor is not None:
        if "original_max_position_embeddings" not in site.config.rope:
            raise InputError("yarn needs original_max_position_embeddings", file="config.json")
        for line in YARN:
            yield from line(site)
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


def rope_sections(site: Site) -> Lines:
    """The numbers of rotary dimensions for time, height, width and a fourth section, which is 0 if not given."""
    parameters = site.config.part("rope_parameters")
    if parameters.get("mrope_section") is not None:
        sections = parameters.integers("mrope_section")
        yield "rope.dimension_sections", values.array(ValueType.INT32, (*sections, 0, 0, 0, 0)[:4])


def rope_freq_base_swa(site: Site) -> object:
    sliding = site.config.part("rope_parameters").get("sliding_attention")
    return sliding.get("rope_theta") if isinstance(sliding, dict) else None


def sliding_layers(site: Site) -> list[bool]:
    """For each layer, whether it attends within a sliding window, according to the config's `layer_types`."""
    return [kind == "sliding_attention" for kind in site.config.by_layer("layer_types")]


SLIDING_PATTERN = flag("attention.sliding_window_pattern", sliding_layers)


# The functions that score experts, by number. Source: gguf-py's ExpertGatingFuncType.
SOFTMAX, SIGMOID, SQRT_SOFTPLUS = 1, 2, 4
_GATING = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "sqrtsoftplus": SQRT_SOFTPLUS}
_GATING_KEYS = (
    "score_function",
    "scoring_func",
    "score_func",
    "moe_router_activation",
    "moe_router_activation_func",
    "expert_selection_fn",
)


def expert_gating(site: Site) -> int | None:
    name = site.config.find(*_GATING_KEYS)
    if name is None:
        return None
    if not isinstance(name, str) or name not in _GATING:
        raise UnsupportedError(
            f"the expert scoring function {name!r:.40} is not known",
            file="config.json",
            hint=f"known: {', '.join(_GATING)}",
        )
    return _GATING[name]


def leading_dense(site: Site) -> int:
    """The number of layers before the first one with experts, according to the config's `mlp_layer_types`."""
    kinds = site.config.listed("mlp_layer_types")
    return next((layer for layer, kind in enumerate(kinds) if kind != "dense"), len(kinds))


# Experts that every token goes through, and what the outputs of the chosen ones are multiplied by.
SHARED_AND_SCALED: tuple[MetadataLine, ...] = (
    u32("expert_shared_count", "n_shared_experts", "num_shared_experts"),
    f32("expert_weights_scale", "routed_scaling_factor"),
    flag("expert_weights_norm", "norm_topk_prob"),
)

# Several streams between the layers, which matrices mix.
HYPER_CONNECTIONS: tuple[MetadataLine, ...] = (
    u32("hyper_connection.count", "hc_mult"),
    u32("hyper_connection.sinkhorn_iterations", "hc_sinkhorn_iters"),
    f32("hyper_connection.epsilon", "hc_eps"),
)

# What configs call the epsilon of norms that subtract the mean.
LAYER_NORM_EPSILON = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")

# The keys of nearly every decoder, in the reference's order. A line writes nothing if the config lacks its keys.
DECODER: tuple[MetadataLine, ...] = (
    u32("block_count", lambda site: site.block_count),
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
    flag("attention.causal", lambda site: False if site.config.find("is_causal") is False else None),
    rope_scaling,
    rope_sections,
    f32("rope.freq_base", rope("rope_theta")),
    f32("rope.freq_base_swa", rope_freq_base_swa),
    f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", "norm_eps"),
    f32("attention.layer_norm_epsilon", *LAYER_NORM_EPSILON),
    u32("expert_count", "num_local_experts", "num_experts", "n_routed_experts"),
    u32("expert_used_count", "num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
    u32("expert_group_count", "n_group"),
    u32("expert_group_used_count", "topk_group"),
    u32("expert_gating_func", expert_gating),
    u32("attention.key_length", "head_dim"),
    u32("attention.value_length", "head_dim"),
    file_type,
)
