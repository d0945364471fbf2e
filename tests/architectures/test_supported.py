"""The table of classes: every declaration is in it, and a proof is of a class with the same declaration."""

from __future__ import annotations

import json

import pytest

from gguf_forge.architectures.registry import by_class, declarations
from gguf_forge.architectures.supported import SupportedClass, supported_classes
from gguf_forge.cli import main


def test_every_class_of_every_declaration_is_listed() -> None:
    listed = {(found.name, found.part, name) for found in supported_classes() for name in found.architectures}
    declared = {(name, each.part, each.name) for each in declarations() for name in each.hf}
    assert listed == declared


def test_another_class_proves_one_with_the_same_declaration_only() -> None:
    for found in supported_classes():
        if found.proved_as:
            own, other = by_class()[found.name, found.part], by_class()[found.proved_as, found.part]
            assert {id(each) for each in own} & {id(each) for each in other}, found


@pytest.mark.parametrize(
    ("proof", "proved_as", "text"),
    [
        ((), "", "none yet"),
        (("a", "b"), "", "a, b"),
        (("a", "b", "c", "d", "e"), "", "a, b, c and 2 more"),
        (("a",), "OtherModel", "a (as OtherModel)"),
    ],
)
def test_a_proof_in_words(proof: tuple[str, ...], proved_as: str, text: str) -> None:
    assert SupportedClass("Model", "text", ("llama",), (), proof, proved_as).proof_text == text


def test_the_command_line_lists_them(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--models", "--json"]) == 0
    found = {(each["name"], each["part"]): each for each in json.loads(capfd.readouterr().out)["models"]}
    assert found["Qwen3ForCausalLM", "text"]["architectures"] == ["qwen3"]
    assert main(["info", "--models"]) == 0
    out = "\n" + capfd.readouterr().out
    assert [name for name, _ in found if f"\n{name} " not in out] == []
