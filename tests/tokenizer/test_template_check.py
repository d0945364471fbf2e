"""What is wrong with a chat template is said at conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import FAMILIES, write_checkpoint
from tokenizer_folders import edit
from vocabularies import converted

from gguf_forge.gguf_file.values import Metadata, ValueType, array, boolean, string, u32
from gguf_forge.tokenizer import template_problems

TOKENS = ["<unk>", "<s>", "</s>", "<|user|>", "<start_of_turn>"]


def problems(template: str, **more: Any) -> list[str]:
    metadata: Metadata = {
        "tokenizer.ggml.model": string(more.pop("model", "gpt2")),
        "tokenizer.ggml.tokens": array(ValueType.STRING, TOKENS),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.chat_template": string(template),
    }
    return template_problems(metadata | more.pop("keys", {}))


@pytest.mark.parametrize(
    "template",
    [
        "<|user|>{{ messages[0].content }}</s>",
        "<think>{{ x }}</think>[INST]<tool_call>",
        "{# <|other|> #}{{ '<|' + x + '|>' }}",
        "{% if '<|other|>' in x %}<start_of_turn>{% endif %}",
        "mistral-v7-tekken",
        "{{ bos_token }}",
    ],
)
def test_nothing_is_wrong(template: str) -> None:
    assert problems(template) == []


def test_tokens_that_the_vocabulary_lacks() -> None:
    assert problems("<|a|>{{ x }}<|user|>{{ '<|b|>' }}<end_of_turn>") == [
        "the chat template writes <|a|>, <|b|>, <end_of_turn>, which the vocabulary does not have as a token"
    ]


@pytest.mark.parametrize("template", ["{{ bos_token }}a", "<s>{{ x }}", "{% set a = 1 %}{{ '<s>' + x }}"])
def test_a_doubled_beginning(template: str) -> None:
    said = ["the chat template begins with the BOS token, which add_bos_token adds as well: a program that does both "
            "doubles it"]  # fmt: skip
    assert problems(template, model="llama") == said
    assert problems(template, keys={"tokenizer.ggml.add_bos_token": boolean(True)}) == said
    assert problems(template, model="llama", keys={"tokenizer.ggml.add_bos_token": boolean(False)}) == []


def test_a_broken_template_and_the_name_of_a_file() -> None:
    assert problems("a\n{% if %}")[0].startswith("the chat template is broken: line 2: ")
    assert problems("./chat_template.jinja") == [
        "the chat template is the name of a file, ./chat_template.jinja, and not its text"
    ]


def test_every_template_of_a_list_is_looked_at() -> None:
    more = {
        "tokenizer.chat_template.rag": string("<|x|>"),
        "tokenizer.chat_templates": array(ValueType.STRING, ["rag"]),
    }
    assert problems("a", keys=more) == [
        "the chat template 'rag' writes <|x|>, which the vocabulary does not have as a token"
    ]


def test_one_warning_at_conversion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_checkpoint(FAMILIES / "llama2-spm", tmp_path / "hf")
    edit(folder / "tokenizer_config.json", lambda config: config.update(chat_template="{{ bos_token }}<|im_start|>"))
    converted(folder, vocab_only=True)
    (record,) = (record for record in caplog.records if "chat template" in record.message)
    assert record.levelname == "WARNING"
    assert "begins with the BOS token" in record.message and "writes <|im_start|>" in record.message


@pytest.mark.parametrize("template", ["{% for a in x", json.dumps("{" * 9999), "{{ 'x' * 10**12 }}"])
def test_a_bad_template_is_written_as_it_is(template: str, tmp_path: Path) -> None:
    folder = write_checkpoint(FAMILIES / "llama2-spm", tmp_path / "hf")
    (folder / "chat_template.jinja").write_text(template)
    assert converted(folder, vocab_only=True).exists()


def test_hostile_keys() -> None:
    keys: Metadata = {"tokenizer.chat_template": string("<s>{{ x }}<|x|>")}
    assert template_problems(keys) == []
    keys |= {"tokenizer.ggml.tokens": array(ValueType.INT32, [1 << 30]), "tokenizer.ggml.bos_token_id": u32(0)}
    assert template_problems(keys) == []
    keys["tokenizer.ggml.tokens"] = array(ValueType.STRING, [b"\xff"])
    for id in (string("0"), u32(9), array(ValueType.INT32, [0])):
        keys |= {"tokenizer.ggml.bos_token_id": id, "tokenizer.ggml.add_bos_token": boolean(True)}
        assert "which the vocabulary does not have" in template_problems(keys)[0]
    keys["tokenizer.chat_template"] = u32(1)
    assert template_problems(keys) == []


def test_of_many_templates_the_first_are_looked_at() -> None:
    many = {f"tokenizer.chat_template.{number}": string(f"<|{number}|>") for number in range(99)}
    assert len(problems("<|x|>", keys=many)) == 16
    assert problems("<|x|>", keys=many)[0].startswith("the chat template writes <|x|>")
