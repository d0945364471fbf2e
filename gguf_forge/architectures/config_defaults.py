"""Defaults of transformers' config classes, by model type.

tools/refresh_config_defaults.py makes the table, config_defaults.json. It has the default arguments of each class, for
the keys that a conversion may ask for. Values that classes compute from other values are in derived_defaults.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from gguf_forge.architectures.derived_defaults import derive
from gguf_forge.wording import log_of

log = log_of(__name__)

# More classes than any classifier has. Class names are not generated above this count, which bounds the memory.
_MOST_LABELS = 10_000


@dataclass(frozen=True)
class _Part:
    """A config inside a config, such as that of a vision encoder."""

    type: str
    """The part's entry in the table."""
    open: bool = False
    """Whether the part's own `model_type`, if it has one, selects its entry. Otherwise `type` always does."""
    inherits: bool = False
    """Whether a missing part is made from the values of the config that contains it."""
    missing: Mapping[str, Any] = field(default_factory=dict)
    """Values that a missing part gets in addition to its type's defaults."""
    always: bool = False
    """Whether a part that is present gets these values too."""


@dataclass(frozen=True)
class _ConfigClass:
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The constructor's arguments and their defaults."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Values that the constructor sets without an argument. The config can overwrite them."""
    fixed: Sequence[str] = ()
    """Values that the config cannot overwrite."""
    never_null: Sequence[str] = ()
    """Arguments for which null means the default."""
    unstored: Sequence[str] = ()
    """Arguments that the class does not store."""
    aliases: Mapping[str, str | None] = field(default_factory=dict)
    """Alias of a key -> the key that its value is stored under; null if the class discards this value."""
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    model_type: str | None = None
    """The model type, if it differs from the entry's name."""


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = (files(__package__) / "config_defaults.json").read_text(encoding="utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def with_defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config.json as its config class stores them: with defaults, and with one name for each value.

    A model type without a class gets no defaults, and neither does a config that its class refuses. A log message
    tells about both.

    Source: `AutoConfig.from_pretrained(...).to_dict()` of transformers 4.57.6.
    """
    kind = raw.get("model_type")
    if kind == "mistral" and "layer_types" in raw:
        kind = "ministral"
    if not isinstance(kind, str) or kind not in _table()["classes"]:
        log.info("no defaults are known for model_type %r: config.json is used as it is", kind)
        return dict(raw)
    try:
        return _copied({**_made(kind, raw), **_labels(raw)})  # type: ignore[no-any-return]
    except (ArithmeticError, TypeError, ValueError, LookupError, RecursionError) as refusal:
        log.info("the defaults of model_type %r do not fit (%s): config.json is used as it is", kind, refusal)
        return dict(raw)


def _copied(value: Any) -> Any:
    """A copy of JSON objects and arrays, in a tenth of the time that `copy.deepcopy` takes."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _labels(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The generated names of a classifier's classes, for a config that gives only their number."""
    count = raw.get("num_labels")
    if raw.get("id2label") is not None or not isinstance(count, int) or count > _MOST_LABELS:
        return {}
    return {"id2label": {str(number): f"LABEL_{number}" for number in range(count)}}


def _made(kind: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config object that the table entry's class makes from `raw`.

    The constructor takes its arguments, derives values from them, and then sets all other keys of the config.
    """
    entry = _ConfigClass(**_table()["classes"][kind])
    arguments = {
        key: value
        for key, value in raw.items()
        if key in entry.arguments and not (value is None and key in entry.never_null)
    }
    values = derive(kind, {**_table()["common"], **entry.set, **entry.arguments, **arguments})
    values.update(_others(entry, raw))
    beside = {key: value for key, value in raw.items() if key not in entry.arguments and key not in entry.parts}
    for key, part in entry.parts.items():
        values[key] = _made_part(_Part(**part), raw.get(key), beside)
    values["model_type"] = entry.model_type or kind
    return {key: value for key, value in values.items() if key not in entry.unstored}


def _others(entry: _ConfigClass, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The config's values that are not constructor arguments, with aliases replaced by the keys they stand for."""
    kept = {entry.aliases.get(key, key): value for key, value in raw.items() if key not in entry.arguments}
    return {key: value for key, value in kept.items() if key is not None and key not in entry.fixed}


def _made_part(part: _Part, given: Any, around: Mapping[str, Any]) -> Any:
    if given is None:
        inherited = {key: value for key, value in around.items() if key != "model_type"} if part.inherits else {}
        return _made(part.type, {**part.missing, **inherited})
    if not isinstance(given, dict):
        return given
    kind = given.get("model_type", part.type) if part.open else part.type
    return _made(kind, {**part.missing, **given} if part.always and kind == part.type else given)
