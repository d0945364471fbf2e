"""One place for rotary settings, where a config has both `rope_parameters` and `rope_scaling`.

transformers 5 writes `rope_parameters`, and people and tools add `rope_scaling` for long contexts, as model cards of
transformers 4 say. A given `rope_scaling` outranks then. llama.cpp's converter ignores it, so the model loses what it
needs beyond its trained length.

Source: `convert_rope_params_to_dict` of `RotaryEmbeddingConfigMixin` and of Gemma 3's config in transformers 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_OLD, _NEW = "rope_scaling", "rope_parameters"
_DEPTH = 2
_FULL = "full_attention"
_TYPES = ("rope_type", "type")
# The settings of one kind of scaling. Those of another kind do not outlast it.
_OF_SCALING = frozenset(
    {
        *_TYPES,
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "truncate"),
        *("low_freq_factor", "high_freq_factor", "short_factor", "long_factor", "mscale", "mscale_all_dim"),
    }
)


def with_one_rope(config: Mapping[str, object], depth: int = _DEPTH) -> Mapping[str, object]:
    """The config, with `rope_scaling` inside `rope_parameters` wherever a part of it has both.

    Example:
        >>> with_one_rope({"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": {"type": "yarn", "factor": 4.0}})
        {'rope_parameters': {'rope_theta': 1000000.0, 'type': 'yarn', 'factor': 4.0}}
    """
    config = {**config, **{key: with_one_rope(part, depth - 1) for key, part in _parts(config, depth)}}
    both = _both_settings(config)
    if both is None:
        return config
    parameters, scaling = both
    without = _OLD if parameters else _NEW
    rest = {key: value for key, value in config.items() if key != without}
    return {**rest, _NEW: _merged(parameters, scaling)} if parameters else rest


def outranked(config: Mapping[str, object], depth: int = _DEPTH) -> Iterator[str]:
    """What `with_one_rope` changes, in words: one message for each part of the config that it changes.

    Example:
        >>> [said] = outranked({"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": {"type": "yarn", "factor": 4}})
        >>> said.partition(",")[0]
        'config.json: rope_scaling (yarn) counts before rope_parameters (default)'
    """
    for _, part in _parts(config, depth):
        yield from outranked(part, depth - 1)
    both = _both_settings(config)
    if both is not None:
        parameters, scaling = both
        yield (
            f"config.json: {_OLD} ({_shown(scaling)}) counts before {_NEW} ({_shown(parameters)}), as in "
            "transformers 5; llama.cpp's converter ignores it, and so does --as-reference"
        )


def _parts(config: Mapping[str, object], depth: int) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The parts of a config that may have rotary settings of their own."""
    if depth:
        yield from ((key, part) for key, part in config.items() if isinstance(part, dict) and key not in (_OLD, _NEW))


def _both_settings(config: Mapping[str, object]) -> tuple[Mapping[str, object], Mapping[str, object]] | None:
    """`rope_parameters` and `rope_scaling`, if the config has both and the second says something else."""
    parameters, scaling = config.get(_NEW), config.get(_OLD)
    if _NEW not in config or not isinstance(scaling, dict) or not scaling or not isinstance(parameters, dict | None):
        return None
    parameters = parameters or {}
    same = parameters and _settled(_merged(parameters, scaling)) == _settled(parameters)
    return None if same else (parameters, scaling)


def _merged(parameters: Mapping[str, object], scaling: Mapping[str, object]) -> dict[str, object]:
    full = parameters.get(_FULL)
    if isinstance(full, dict) and _FULL not in scaling:
        return {**parameters, _FULL: _merged(full, scaling)}
    return {**{key: value for key, value in parameters.items() if key not in _OF_SCALING}, **scaling}


def _settled(parameters: Mapping[str, object]) -> dict[str, object]:
    """The parameters with one name for the type. Sections of several axes are no scaling."""
    kind = _kind(parameters)
    others = {key: value for key, value in parameters.items() if key not in _TYPES and value is not None}
    return {**others, "rope_type": "default" if kind == "mrope" else kind}


def _kind(parameters: Mapping[str, object]) -> object:
    return next((parameters[key] for key in _TYPES if parameters.get(key) is not None), "default")


def _shown(parameters: Mapping[str, object]) -> str:
    full = parameters.get(_FULL)
    return f"{_kind(full if isinstance(full, dict) else parameters)!s:.40}"
