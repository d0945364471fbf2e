"""Finds the declaration for a checkpoint.

The registry collects the declarations from the modules in families/, so that a new family needs only a new file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from pkgutil import iter_modules
from types import MappingProxyType

from gguf_forge.architectures import families
from gguf_forge.architectures.config import Config, text_part
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.site import Part
from gguf_forge.errors import InputError, UnsupportedError, printable

# Classes whose text part is looked up by their own name, although their text_config names another class.
# Source: get_model_architecture in conversion/base.py.
_TOP_LEVEL = frozenset(
    (
        "Exaone4_5_ForConditionalGeneration",
        "GlmasrModel",
        "KimiK3ForConditionalGeneration",
        "Sarashina2VisionForCausalLM",
        "Step3p7ForConditionalGeneration",
        "StepVLForConditionalGeneration",
    )
)


_PARTS: tuple[Part, ...] = ("text", "mmproj")
_BORROWED = re.compile(r"\.hf\b")  # a declaration with the class names of another one


@lru_cache
def declarations() -> tuple[Architecture, ...]:
    """Every declaration of the families, in the order of their files and in each file's own."""
    return _declared_in(_modules())


@lru_cache
def by_class() -> Mapping[tuple[str, Part], tuple[Architecture, ...]]:
    """(class name, part) -> its declarations, those with a condition first."""
    return _table(declarations())


@lru_cache
def _of_class(name: str) -> Mapping[tuple[str, Part], tuple[Architecture, ...]]:
    """What `by_class` says of one class, from the modules whose text has its name or takes over another's list (`.hf`).

    A conversion needs one class, and importing all families would take more time and memory than planning it.
    """
    texts = {module: files(families).joinpath(f"{module}.py").read_text() for module in _modules()}
    found = _table(_declared_in(module for module, text in texts.items() if name in text or _BORROWED.search(text)))
    return found if any(known == name for known, _ in found) else by_class()


@lru_cache
def _modules() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in iter_modules(families.__path__)))


def _declared_in(modules: Iterable[str]) -> tuple[Architecture, ...]:
    found = (
        value
        for module in modules
        for value in vars(import_module(f"{families.__name__}.{module}")).values()
        if isinstance(value, Architecture)
    )
    return tuple({id(value): value for value in found}.values())


def _table(found: Iterable[Architecture]) -> Mapping[tuple[str, Part], tuple[Architecture, ...]]:
    table: dict[tuple[str, Part], tuple[Architecture, ...]] = {}
    for architecture in sorted(found, key=lambda found: found.when is None):
        for name in architecture.hf:
            others = table.get((name, architecture.part), ())
            if architecture.when is None and any(other.when is None for other in others):
                raise ValueError(f"two declarations claim {name} ({architecture.part})")
            table[name, architecture.part] = (*others, architecture)
    return MappingProxyType(table)


def class_name(config: Mapping[str, object], part: Part = "text") -> str:
    """The class that a config names for a part of its model.

    Raises:
        InputError: it names none.
    """
    names = config.get("architectures")
    top = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    of_mamba = config.get("ssm_cfg")
    if top is None and isinstance(of_mamba, dict):
        # Checkpoints of the package mamba_ssm are older than Mamba in transformers and name no class.
        top = f"{of_mamba.get('layer', 'Mamba')}ForCausalLM"
    nested = text_part(config) if part == "text" else config.get("vision_config")
    inner = nested.get("architectures") if isinstance(nested, dict) else None
    if isinstance(inner, list) and inner and isinstance(inner[0], str) and not (part == "text" and top in _TOP_LEVEL):
        return inner[0]
    if top is None:
        raise InputError("no architecture is named", file="config.json", hint=_hint_for_class(config))
    return top


def declarations_of(config: Mapping[str, object], part: Part) -> tuple[Architecture, ...]:
    """The declarations that fit a part of a checkpoint. The first of them counts.

    Raises:
        InputError: config.json names no architecture.
    """
    name = class_name(config, part)
    found = _of_class(name).get((name, part), ())
    if len(found) > 1:
        model = Config.of(config)
        found = tuple(one for one in found if one.when is None or one.when(model))
    return found


def find_architecture(config: Mapping[str, object], part: Part = "text") -> Architecture:
    """The declaration for a part of a checkpoint.

    Args:
        config: The parsed config.json.
        part: Which part of the model.

    Raises:
        InputError: config.json names no architecture.
        UnsupportedError: this version does not know the architecture, or not this part of it.

    Example:
        >>> find_architecture({"architectures": ["MistralForCausalLM"]}).name
        'llama'
    """
    found = declarations_of(config, part)
    if found:
        return found[0]
    name, table = class_name(config, part), by_class()
    known = sorted({hf for hf, of in table if of == part})
    if part == "mmproj" and (name, "text") in table:
        raise UnsupportedError(f"no projector is known for {name}", file="config.json", hint="leave out --mmproj")
    if part == "text" and (name, "mmproj") in table:
        raise UnsupportedError(
            f"of {printable(name)}, only the encoders and the projector are known",
            file="config.json",
            hint="--mmproj makes a file of them",
        )
    problem = f"{printable(name)} is not supported yet"
    raise UnsupportedError(problem, file="config.json", hint=_hint(name, known, config))


def module_files(config: Mapping[str, object]) -> Mapping[str, str]:
    """The files with further tensors that a checkpoint may have, according to its declarations; empty if none."""
    try:
        found = (one for part in _PARTS for one in declarations_of(config, part)[:1])
        return {path: prefix for one in found for path, prefix in one.modules.items()}
    except InputError:
        return {}


def _hint_for_class(config: Mapping[str, object]) -> str:
    """What helps if a config names no class: what it is instead, or the classes of its type of model."""
    if isinstance(config.get("_class_name"), str):
        return "this is the config of a part of a diffusers pipeline, not of a language model"
    kind = config.get("model_type")
    names = [name for name, part in by_class() if part == "text" and isinstance(kind, str) and _is_of(name, kind)]
    example = names[0] if names else "LlamaForCausalLM"
    which = f"of type {kind}" if names else "of a model"
    return f'the config of a checkpoint {which} says, for example, "architectures": ["{example}"]: add the right one'


def _is_of(name: str, kind: str) -> bool:
    return name.lower() == f"{kind.removesuffix('_text').replace('_', '').lower()}forcausallm"


def _hint(name: str, known: list[str], config: Mapping[str, object]) -> str:
    """What helps if a class is not known: the right spelling, the class of the language model inside, or the list."""
    from difflib import get_close_matches

    # A class of another model may have a name that differs in one letter, so only the rest may be misspelled.
    stem = _stem(name)
    same = {each.lower(): each for each in known if _stem(each) == stem}
    close = get_close_matches(name.lower(), same, n=1, cutoff=0.9)
    if close:
        return f"did you mean {same[close[0]]}?"
    kind = text_part(config).get("model_type")
    classes = [each for each in known if isinstance(kind, str) and _is_of(each, kind)]
    if classes:
        return f'with "architectures": ["{classes[0]}"] in its text_config, the language model alone may be converted'
    return (
        "look for a GGUF file that others made of it, or ask for its support; `gguf-forge info --models` lists what is"
    )


def _stem(name: str) -> str:
    """The part of a class's name that tells the model."""
    return name.lower().partition("for")[0].removesuffix("model")
