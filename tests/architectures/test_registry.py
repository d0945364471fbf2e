from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from gguf_forge import architectures
from gguf_forge.architectures import FAMILIES, find_architecture
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.templates import parse, role
from gguf_forge.architectures.tensor_names import known_names, roles_of
from gguf_forge.errors import InputError, UnsupportedError

_MACHINERY = {"__init__", "config", "dsl", "metadata", "names", "operations", "plan", "pooling", "shapes"}


def declared() -> dict[str, tuple[str, str]]:
    """Class name -> (module, attribute), as the modules themselves declare it."""
    folder = Path(architectures.__file__).parent / "families"
    modules = sorted(path.stem for path in folder.glob("*.py") if path.stem not in _MACHINERY)
    return {
        hf: (module, attribute)
        for module in modules
        for attribute, found in vars(import_module(f"gguf_forge.architectures.families.{module}")).items()
        if isinstance(found, Architecture)
        for hf in found.hf
    }


def test_the_table_is_what_the_modules_declare() -> None:
    assert declared() == FAMILIES


@pytest.mark.parametrize("hf", FAMILIES)
def test_every_family_is_found_and_has_names(hf: str) -> None:
    architecture = find_architecture({"architectures": [hf]})
    assert hf in architecture.hf
    assert known_names(architecture.name), "no names are known for this architecture"


@pytest.mark.parametrize("hf", FAMILIES)
def test_every_rule_names_a_tensor_of_the_architecture(hf: str) -> None:
    architecture = find_architecture({"architectures": [hf]})
    roles = roles_of(architecture.name)
    for target in (rule.target for rule in architecture.rules):
        assert role(target) in roles


def test_unknown_models_are_refused_with_the_nearest_names() -> None:
    with pytest.raises(UnsupportedError, match=r"Qwen2ForCausalLMM is not supported.*Qwen2ForCausalLM"):
        find_architecture({"architectures": ["Qwen2ForCausalLMM"]})


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": [3]}, {"architectures": "Llama"}])
def test_a_config_without_architecture_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(InputError, match="no architecture is named"):
        find_architecture(config)


def test_parse_takes_the_first_two_numbers() -> None:
    assert parse("a.1.b.2.c.3.w") == ("a.{i}.b.{e}.c.3.w", 1, 2)
    assert parse("lm_head.weight") == ("lm_head.weight", None, None)
    assert parse("w1.weight") == ("w1.weight", None, None)
