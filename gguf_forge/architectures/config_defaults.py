"""Defaults of transformers' config classes, by model type.

The table, config_defaults.json, is made by tools/refresh_config_defaults.py: the arguments' defaults of each class,
with the keys that a conversion may ask for. What classes compute is in derived_defaults.py.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from gguf_forge.architectures.derived_defaults import derive

log = logging.getLogger(__name__)

# More classes than any classifier has. Names are not made for more.
_MOST_LABELS = 10_000


@dataclass(frozen=True)
class _Part:
    """A config inside a config, such as that of a vision encoder."""

    type: str
    """The part's entry in the table."""
    open: bool = False
    """Whether the part's own `model_type` counts first."""
    inherits: bool = False
    """Whether a part that is missing is made of the values around it."""
    missing: Mapping[str, Any] = field(default_factory=dict)
    """What a part that is missing holds beside its type's defaults."""
    always: bool = False
    """Whether a part that is there holds these as well."""


@dataclass(frozen=True)
class _ConfigClass:
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The constructor's arguments and their defaults."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """What the constructor sets without an argument. The config can overwrite it."""
    fixed: Sequence[str] = ()
    """What the config cannot overwrite."""
    never_null: Sequence[str] = ()
    """Arguments for which null stands for the default."""
    unstored: Sequence[str] = ()
    """Arguments that are not kept."""
    aliases: Mapping[str, str | None] = field(default_factory=dict)
    """Another name of a key -> the name that the value gets; null if a value under that name is lost."""
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    model_type: str | None = None
    """The model type, where it is not the entry's name."""


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = (files(__package__) / "config_defaults.json").read_text(encoding="utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def with_defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config.json as its class has them: with defaults, and with one name for each value.

    A model type without a class gets no defaults, and neither does a config that its class refuses. Both get a
    message.

    Source: `AutoConfig.from_pretrained(...).to_dict()` of transformers 4.57.6.
    """
    kind = raw.get("model_type")
    if kind == "mistral" and "layer_types" in raw:
        kind = "ministral"
    if not isinstance(kind, str) or kind not in _table()["classes"]:
        log.info("no defaults are known for model_type %r: config.json is used as it is", kind)
        return dict(raw)
    try:
        return copy.deepcopy({**_made(kind, raw), **_labels(raw)})
    except (ArithmeticError, TypeError, ValueError, LookupError, RecursionError) as refusal:
        log.info("the defaults of model_type %r do not fit (%s): config.json is used as it is", kind, refusal)
        return dict(raw)


def _labels(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The names that classes get where a config only counts them."""
    count = raw.get("num_labels")
    if raw.get("id2label") is not None or not isinstance(count, int) or count > _MOST_LABELS:
        return {}
    return {"id2label": {str(number): f"LABEL_{number}" for number in range(count)}}


def _made(kind: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """What the class of a table's entry holds when it is made of `raw`.

    The constructor takes arguments, derives values from them, and then sets whatever else the config says.
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
    """What a config says beside the arguments, under the names that count."""
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
