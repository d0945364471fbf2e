from __future__ import annotations

import pytest

from gguf_forge.architectures import find_architecture
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.registry import _of_class, by_class, declarations
from gguf_forge.architectures.site import Part
from gguf_forge.architectures.templates import fill, parse, role
from gguf_forge.architectures.tensor_names import known_names, roles_of
from gguf_forge.errors import InputError, UnsupportedError


def test_the_class_of_the_language_model_inside_is_a_hint() -> None:
    config = {"architectures": ["SomeVLForConditionalGeneration"], "text_config": {"model_type": "qwen2"}}
    with pytest.raises(UnsupportedError) as error:
        find_architecture(config)
    assert '"architectures": ["Qwen2ForCausalLM"] in its text_config' in str(error.value.hint)
    inside = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    assert find_architecture({**config, "text_config": inside}).name == "qwen2"


@pytest.mark.parametrize(("hf", "part"), by_class())
def test_every_family_is_found_and_has_names(hf: str, part: Part) -> None:
    architecture = find_architecture({"architectures": [hf]}, part)
    assert hf in architecture.hf
    assert known_names(architecture.name), "no names are known for this architecture"


@pytest.mark.parametrize("architecture", declarations(), ids=lambda found: f"{found.name}-{found.hf[0]}")
def test_every_rule_names_a_tensor_of_the_architecture(architecture: Architecture) -> None:
    # what every architecture may have: a classifier's head, and the second frame of a convolution
    roles = roles_of(architecture.name) | {"cls.output", "v.patch_embd.weight.{i}"}
    for target in (rule.target for rule in architecture.rules):
        # an activation has two parameters
        tensor = role(parse(fill(target, 0, 0)).template).removesuffix(".alpha").removesuffix(".beta")
        assert tensor.partition(".lora_")[0] in roles


def test_a_class_has_one_declaration_a_part_without_condition() -> None:
    for found in by_class().values():
        assert [one.when for one in found].count(None) == 1


def test_what_the_config_says_decides_between_declarations_of_a_class() -> None:
    config = {"architectures": ["NomicBertModel"]}
    assert find_architecture(config).name == "nomic-bert"
    assert find_architecture({**config, "moe_every_n_layers": 2}).name == "nomic-bert-moe"


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


NO_OTHER_WAY = (
    "look for a GGUF file that others made of it, or ask for its support; `gguf-forge info --models` lists what is"
)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Qwen3VLMoEForConditionalGeneration", "did you mean Qwen3VLMoeForConditionalGeneration?"),
        ("MistralForCasualLM", "did you mean MistralForCausalLM?"),
        ("Qwen9ForCausalLM", NO_OTHER_WAY),
        ("MllamaForConditionalGeneration", NO_OTHER_WAY),
        ("SmolLM3ForCausalLm", "did you mean SmolLM3ForCausalLM?"),
    ],
)
def test_only_a_misspelling_gets_a_name_as_its_hint(name: str, hint: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        find_architecture({"architectures": [name]})
    assert error.value.hint == hint


@pytest.mark.parametrize(("hf", "part"), by_class())
def test_one_class_is_found_without_the_other_families(hf: str, part: Part) -> None:
    """The modules whose text has its name say all that the whole table says, in the same order."""
    assert _of_class(hf)[hf, part] == by_class()[hf, part]


def test_a_class_without_a_language_model_leads_to_its_projector() -> None:
    with pytest.raises(UnsupportedError, match="only the encoders and the projector are known") as raised:
        find_architecture({"architectures": ["UltravoxModel"]})
    assert "--mmproj" in (raised.value.words.hint or "")
