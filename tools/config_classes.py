"""transformers' config classes as facts: their defaults, their aliases, and the parts that multimodal ones have."""

from __future__ import annotations

import ast
import copy
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from gguf_forge.architectures.derived_defaults import derive

# What every config class has, and what says how to generate or to run rather than what the weights are.
_COMMON = set(PretrainedConfig().to_dict())
_COMMON_KEPT = {
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "is_encoder_decoder",
    "pad_token_id",
    "tie_word_embeddings",
}

# Names of other files' keys (those of sentence-transformers' modules), which some vision classes have as well.
_OTHER_FILES = {"out_features"}

# A model type that no part has on its own, to see whether a part takes the type that it is given.
_FOREIGN = "starcoder2"

# A value that no class has by itself.
_PROBE = 123456


def asked_keys(*folders: Path) -> set[str]:
    """Every string constant of Python code that could be a key: what a conversion may ask a config for."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for folder in folders for path in folder.rglob("*.py"))
    constants = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    found = {value for value in constants if isinstance(value, str) and value.isidentifier()}
    return found - (_COMMON - _COMMON_KEPT) - _OTHER_FILES


def config_classes() -> Iterator[tuple[str, type[PretrainedConfig]]]:
    """Model type -> class, of the classes that need no arguments."""
    for model_type in CONFIG_MAPPING_NAMES:
        found = CONFIG_MAPPING[model_type]
        try:
            found()
        except (ValueError, OSError):
            continue
        yield model_type, found


def only_asked(config: PretrainedConfig, asked: set[str]) -> dict[str, Any]:
    """`to_dict` of a config and its parts, with the keys that are asked for."""
    values = config.to_dict()
    return {
        key: only_asked(part, asked) if isinstance(part := vars(config).get(key), PretrainedConfig) else plain(value)
        for key, value in values.items()
        if key in asked
    }


def plain(value: Any) -> Any:
    """As JSON has it: lists for tuples, text for the keys of an object."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def arguments(config_class: type[PretrainedConfig]) -> dict[str, Any]:
    """The arguments of the class's constructor, and their defaults."""
    found: dict[str, Any] = {}
    for owner in config_class.__mro__[: config_class.__mro__.index(PretrainedConfig)]:
        if "__init__" in vars(owner):
            for name, parameter in list(inspect.signature(owner.__init__).parameters.items())[1:]:
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    found.setdefault(name, None if parameter.default is parameter.empty else parameter.default)
    return found


class Tables:
    """The entries of all model types, and those of parts that have no model type of their own.

    An entry has
    - `arguments`: the constructor's arguments and their defaults (what it makes of them is in derived_defaults.py);
    - `set`: keys that the constructor sets without an argument, which the config may overwrite all the same;
    - `fixed`: keys that the config cannot overwrite;
    - `never_null`: arguments for which null stands for the default;
    - `unstored`: arguments that the config does not keep;
    - `aliases`: another name -> the key that counts, or null if a value under that name is lost;
    - `parts`: configs inside the config.
    """

    def __init__(self, asked: set[str]) -> None:
        self.asked = asked
        self.entries: dict[str, dict[str, Any]] = {}
        self.classes: dict[str, type[PretrainedConfig]] = {}
        self.names: dict[type[PretrainedConfig], str] = {}
        self.common = {key: vars(PretrainedConfig()).get(key) for key in sorted(_COMMON_KEPT & asked)}
        classes = dict(config_classes())
        self.names.update({found: name for name, found in classes.items() if found.model_type == name})
        for name, found in classes.items():
            self.add(name, found)

    def add(self, name: str, config_class: type[PretrainedConfig]) -> None:
        config = config_class()
        stored = {key: plain(value) for key, value in config.to_dict().items() if key in self.asked}
        given = {
            key: plain(value)
            for key, value in arguments(config_class).items()
            if key in self.asked and (key not in self.common or sticks(config_class, key, key))
        }
        parts = {
            key: self.part(name, config_class, key, value)
            for key, value in vars(config).items()
            if isinstance(value, PretrainedConfig) and key in self.asked
        }
        aliases = {
            key: kept for key, kept in config_class.attribute_map.items() if key != kept and {key, kept} & self.asked
        }
        loose = {key: value for key, value in stored.items() if key not in given and key not in parts}
        named = {key: given[key] for key in sorted(given.keys() - parts.keys() - aliases.keys())}
        settled = self.settled(name, stored, named)
        sections = {
            "arguments": settled,
            "never_null": [key for key in named if named[key] is None is not settled[key]],
            "set": {key: value for key, value in loose.items() if self.common.get(key, ...) != value},
            "fixed": [key for key in loose if not sticks(config_class, key, key)],
            "unstored": [key for key in given if key not in stored and key not in aliases],
            "aliases": {key: kept if sticks(config_class, key, kept) else None for key, kept in aliases.items()},
            "parts": parts,
        }
        if config_class.model_type != name:
            sections["model_type"] = config_class.model_type
        self.classes[name] = config_class
        self.entries[name] = {title: section for title, section in sections.items() if section}

    def settled(self, name: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments' defaults, with what a constructor puts in place of null if no derivation does."""
        made = derive(name, {**self.common, **stored, **given})
        return {key: given[key] if made[key] == stored.get(key, made[key]) else stored[key] for key in given}

    def part(self, owner: str, owner_class: type[PretrainedConfig], key: str, part: PretrainedConfig) -> dict[str, Any]:
        """How a part is made: of which type, whether another type can be given, and what it is if it is missing."""
        config_class = type(part)
        if config_class not in self.names:
            self.names[config_class] = f"{owner}.{key}"
            self.add(self.names[config_class], config_class)
        needed = self.needed(part)
        empty = made(owner_class, key, {"model_type": config_class.model_type})
        facts = {
            "type": self.names[config_class],
            "open": type(made(owner_class, key, {"model_type": _FOREIGN})) is CONFIG_MAPPING[_FOREIGN],
            "inherits": inherits(owner_class, key),
            "missing": needed,
            "always": bool(needed)
            and type(empty) is config_class
            and only_asked(empty, self.asked) == only_asked(part, self.asked),
        }
        return {name: fact for name, fact in facts.items() if fact}

    def needed(self, part: PretrainedConfig) -> dict[str, Any]:
        """The fewest arguments that the part's class is made with, so that it is the same part."""
        own = only_asked(part, self.asked)
        given = {key: value for key, value in own.items() if key != "model_type" and not isinstance(value, dict)}
        for key in list(given):
            fewer = {name: value for name, value in given.items() if name != key}
            if self.same(type(part), fewer, own):
                given = fewer
        return given

    def same(self, config_class: type[PretrainedConfig], given: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
        try:
            return only_asked(config_class(**copy.deepcopy(dict(given))), self.asked) == own
        except ValueError:
            return False


def sticks(config_class: type[PretrainedConfig], key: str, kept: str) -> bool:
    """Whether a value that a config gives as `key` is there as `kept`."""
    try:
        config = config_class(**{key: _PROBE})
    except (ValueError, TypeError, AttributeError, AssertionError):
        return True
    return bool(vars(config).get(kept) == _PROBE)


def inherits(owner_class: type[PretrainedConfig], key: str) -> bool:
    """Whether a missing part is made of the values beside it."""
    try:
        config = owner_class(hidden_size=_PROBE)
    except ValueError:
        return False
    return getattr(getattr(config, key, None), "hidden_size", None) == _PROBE


def made(owner_class: type[PretrainedConfig], key: str, value: Any) -> Any:
    """The part that a class makes of a value."""
    try:
        return getattr(owner_class(**{key: value}), key)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
