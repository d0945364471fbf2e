"""Ways in which transformers' config classes compute values from other values.

A derivation takes the values of a config and returns those that it changes. It raises a TypeError, ValueError or
ArithmeticError where the class would raise one; the config is then used without defaults, as the reference does.

Source: the constructors in transformers/models/*/configuration_*.py of transformers 4.57.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, Any]
Derivation = Callable[[Values], Mapping[str, Any]]

# More layers than any model has. A list with one entry per layer is not made above this count, which bounds the memory.
_MOST_LAYERS = 10_000
# No number of a model is larger. Products of larger ones could have more digits than Python writes in a message.
_LARGEST = 2**63


def number(values: Values, key: str) -> Any:
    """A number, for arithmetic."""
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST:
        raise TypeError(f"{key} is not a number of a model")
    return value


def layers(values: Values) -> range:
    count = number(values, "num_hidden_layers")
    if count > _MOST_LAYERS:
        raise ValueError("too many layers")
    return range(count)


# Ways to derive one key.


def value_of(key: str) -> Callable[[Values], Any]:
    return lambda values: values[key]


def set_to(key: str, value: Callable[[Values], Any]) -> Derivation:
    """Sets the key to the result of a function, whatever its value was."""
    return lambda values: {key: value(values)}


def same(key: str, source: str) -> Derivation:
    """Sets the key to the value of another key, whatever its value was."""
    return set_to(key, value_of(source))


def if_null(key: str, value: Callable[[Values], Any]) -> Derivation:
    """Sets the key to the result of a function if its value is null."""
    return lambda values: {key: value(values)} if values[key] is None else {}


def same_if_null(key: str, source: str) -> Derivation:
    return if_null(key, value_of(source))


def ratio(above: str, below: str, times: int = 1) -> Callable[[Values], Any]:
    return lambda values: times * number(values, above) // number(values, below)


def product(factor: float, key: str) -> Callable[[Values], Any]:
    return lambda values: factor * number(values, key)


def times(key: str, other: str) -> Callable[[Values], Any]:
    return lambda values: number(values, key) * number(values, other)


def per_layer(key: str, entry: Callable[[int, Values], Any]) -> Derivation:
    """Sets the key to a list with one entry per layer if its value is null."""
    return if_null(key, lambda values: [entry(layer, values) for layer in layers(values)])


def every(interval: int, other: str, full: str = "full_attention", key: str = "") -> Callable[[int, Values], str]:
    """The type of a layer if each `interval`-th layer has full attention. The config may set the interval in `key`."""

    def layer_type(layer: int, values: Values) -> str:
        return other if (layer + 1) % (number(values, key) if key in values else interval) else full

    return layer_type


key_value_heads = same_if_null("num_key_value_heads", "num_attention_heads")
head_dim = if_null("head_dim", ratio("hidden_size", "num_attention_heads"))
alternating = per_layer("layer_types", lambda layer, _: "full_attention" if layer % 2 else "sliding_attention")


# Sliding windows.


def window_in_use(values: Values) -> Values:
    return {} if values.get("use_sliding_window") else {"sliding_window": None}


def _upper_layers_slide(layer: int, values: Values) -> str:
    slides = values["sliding_window"] is not None and layer >= number(values, "max_window_layers")
    return "sliding_attention" if slides else "full_attention"


upper_layers_slide = per_layer("layer_types", _upper_layers_slide)


def exaone4_layer(layer: int, values: Values) -> str:
    interval = 0 if values["sliding_window"] is None else number(values, "sliding_window_pattern")
    return "sliding_attention" if (layer + 1) % interval else "full_attention"


def gemma3_window(values: Values) -> Values:
    """The window to each side in bidirectional attention: half of the config's window, plus 1 for the excluded end."""
    return (
        {"sliding_window": number(values, "sliding_window") // 2 + 1}
        if values.get("use_bidirectional_attention")
        else {}
    )


def slides_if_windowed(_: int, values: Values) -> str:
    return "full_attention" if values["sliding_window"] is None else "sliding_attention"


def modernbert_decoder_layer(layer: int, values: Values) -> str:
    return "sliding_attention" if layer % number(values, "global_attn_every_n_layers") else "full_attention"


def modernbert_decoder_window(values: Values) -> Values:
    return {"sliding_window": number(values, "local_attention") // 2 if values["local_attention"] else -1}


# Layers without rotary embedding.


def has_rope(layer: int, values: Values) -> int:
    return int((layer + 1) % number(values, "no_rope_layer_interval") != 0)


def llama4_layers(values: Values) -> Values:
    rotary = values["no_rope_layers"] or [has_rope(layer, values) for layer in layers(values)]
    types = ["chunked_attention" if rope else "full_attention" for rope in rotary]
    return {"no_rope_layers": rotary, "layer_types": types if values["layer_types"] is None else values["layer_types"]}


def smollm3_layer(layer: int, values: Values) -> str:
    windowed = values["use_sliding_window"] and values["sliding_window"] is not None
    return "sliding_attention" if windowed and not values["no_rope_layers"][layer] else "full_attention"


_LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention", "linear_attention"}


def layer_types_fit(values: Values) -> Values:
    """Checks that there is one type for each layer, and that transformers knows each type."""
    types, count = values["layer_types"], values["num_hidden_layers"]
    if not set(types) <= _LAYER_TYPES or (count is not None and len(types) != count):
        raise ValueError("layer_types does not fit the layers")
    return {}


# State space models and hybrids.


def mamba_head_dim(values: Values) -> Values:
    """The width of one Mamba head; the heads must fill the inner size."""
    given = values.get("mamba_d_ssm")
    inner = number(values, "mamba_expand") * number(values, "hidden_size") if given is None else given
    heads = number(values, "mamba_n_heads")
    width = inner // heads if values["mamba_d_head"] == "auto" else number(values, "mamba_d_head")
    if width * heads != inner:
        raise ValueError("the Mamba heads do not fill the inner size")
    return {"mamba_d_head": width}


def rank(key: str) -> Derivation:
    """The rank of a Mamba layer's time step."""
    return lambda values: {key: math.ceil(number(values, "hidden_size") / 16)} if values[key] == "auto" else {}


def mamba_inner(values: Values) -> Values:
    return {"intermediate_size": int(number(values, "expand") * number(values, "hidden_size"))}


def lfm2_layer(layer: int, values: Values) -> str:
    attention = values.get("full_attn_idxs")
    return "full_attention" if attention is None or layer in attention else "conv"


def zamba_layers(values: Values) -> Values:
    count = len(layers(values))
    period, offset = number(values, "attn_layer_period"), values["attn_layer_offset"]
    later = ("hybrid" if layer % period == offset else "mamba" for layer in range(count - 3))
    return {"layers_block_type": ["mamba", "mamba", "hybrid", *later]}


def zamba2(values: Values) -> Values:
    heads = number(values, "num_attention_heads")
    long = {"max_position_embeddings": 16384} if values["use_long_context"] else {}
    return {"attention_head_dim": 2 * number(values, "hidden_size") // heads, "num_query_groups": heads, **long}


def ones(*keys: str) -> tuple[Derivation, ...]:
    return tuple(if_null(key, lambda _: 1.0) for key in keys)


# Others.


def gemma3n(values: Values) -> Values:
    sizes = values["intermediate_size"]
    size = None if sizes is None or isinstance(sizes, list) else number(values, "intermediate_size")
    count = len(layers(values))
    sparse = 10 if count > 10 else 0
    pattern = values["activation_sparsity_pattern"]
    return {
        "intermediate_size": sizes if isinstance(sizes, list) else [size] * count,
        "activation_sparsity_pattern": [0.95] * sparse + [0.0] * (count - sparse) if pattern is None else pattern,
    }


def falcon_width(values: Values) -> Values:
    return {} if values.get("n_embed") is None else {"hidden_size": values["n_embed"]}


def pair(key: str) -> Derivation:
    """Makes a list of height and width from one number."""
    return lambda values: {} if isinstance(values[key], list) else {key: [values[key], values[key]]}


# Rotary scaling.

# The keys that each type of scaling must have.
_ROPE_KEYS: Mapping[str, tuple[str, ...]] = {
    "default": ("rope_type",),
    "linear": ("rope_type", "factor"),
    "dynamic": ("rope_type", "factor"),
    "yarn": ("rope_type", "factor"),
    "longrope": ("rope_type", "short_factor", "long_factor"),
    "llama3": ("rope_type", "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}


def _scaling(values: Values) -> dict[str, Any]:
    """The rotary scaling; empty if there is none."""
    scaling = values["rope_scaling"]
    if scaling is not None and not isinstance(scaling, dict):
        raise TypeError("rope_scaling is not an object")
    return scaling or {}


def rope_has_one_name(values: Values) -> Values:
    """Copies `type` of the rotary scaling to `rope_type`."""
    scaling = _scaling(values)
    return {"rope_scaling": {**scaling, "rope_type": scaling["type"]}} if "type" in scaling else {}


def rope_is_whole(values: Values) -> Values:
    if values["rope_scaling"] is not None:
        scaling = _scaling(values)
        needed = _ROPE_KEYS.get(scaling.get("rope_type", scaling.get("type", "default")), ())
        if not scaling.keys() >= {*needed}:
            raise ValueError(f"rope_scaling lacks one of {', '.join(needed)}")
    return {}


def rope_factors_are_floats(values: Values) -> Values:
    scaling = _scaling(values)
    factors = {key: float(scaling[key]) for key in ("beta_fast", "beta_slow", "factor") if key in scaling}
    return {"rope_scaling": {**scaling, **factors}} if factors else {}


def rope_is_plain_for_mrope(values: Values) -> Values:
    """Replaces the scaling type `mrope` by `default`, because sections for time, height and width scale nothing."""
    scaling = _scaling(values)
    return (
        {"rope_scaling": {**scaling, "type": "default", "rope_type": "default"}}
        if scaling.get("type") == "mrope"
        else {}
    )


def rope_is_linear_or_dynamic(values: Values) -> Values:
    if values["rope_scaling"] is not None:
        scaling = _scaling(values)
        factor = scaling.get("factor")
        if len(scaling) != 2 or scaling.get("type") not in ("linear", "dynamic"):
            raise ValueError("rope_scaling is neither linear nor dynamic")
        if not isinstance(factor, float) or factor <= 1:
            raise ValueError("rope_scaling's factor is not a float above 1")
    return {}


def rope_is_long(values: Values) -> Values:
    """Checks that LongRoPE scaling has one factor for each pair of rotated dimensions.

    The older names of the type, `su` and `yarn`, become `longrope`.
    """
    if values["rope_scaling"] is None:
        return {}
    scaling = {**_scaling(values)}
    if scaling.get("type") in ("su", "yarn"):
        scaling["type"] = "longrope"
    width = number(values, "hidden_size") // number(values, "num_attention_heads")
    pairs = int(width * number(values, "partial_rotary_factor")) // 2
    factors = [scaling.get("short_factor"), scaling.get("long_factor")]
    if len(scaling) != 3 or scaling.get("type") != "longrope":
        raise ValueError("rope_scaling is not longrope")
    if not all(isinstance(entries, list) and len(entries) == pairs for entries in factors):
        raise ValueError(f"rope_scaling has not {pairs} factors")
    return {"rope_scaling": scaling}


def phimoe_rope(values: Values) -> Values:
    scaling = _scaling(values)
    if not scaling:
        return {}
    for key in ("short_mscale", "long_mscale"):
        number(scaling, key)
    length = "original_max_position_embeddings"
    return {
        "rope_scaling": {"rope_type": scaling.get("type"), **scaling},
        **({length: scaling[length]} if length in scaling else {}),
    }
