"""The chat template is the one that transformers uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reports import MadeInput
from synthetic import FAMILIES, write_checkpoint
from tekken_folders import write_tekken
from tokenizer_folders import edit
from vocabularies import converted, keys

KEY = "tokenizer.chat_template"
NEW = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
OF_REFERENCE = {"null": None, "both": "{{ 'an old one' }}", "path": "./chat_template.jinja", "bare": None}


@pytest.mark.parametrize("kind", OF_REFERENCE)
def test_the_template_of_transformers(kind: str, made: MadeInput, caplog: pytest.LogCaptureFixture) -> None:
    beside = made()
    folder = beside.with_name(f"{beside.name}-{kind}")
    assert keys(converted(folder, pre_tokenizer="qwen2"))[KEY] == NEW
    for words in ("chat_template.jinja", "as_reference=True", "gguf-forge edit --chat-template"):
        assert words in caplog.text
    caplog.clear()
    found = keys(converted(folder, pre_tokenizer="qwen2", as_reference=True))
    assert found.get(KEY) == OF_REFERENCE[kind]
    assert "the chat template is that of" not in caplog.text


# Name -> what tokenizer_config.json has, other files, and the templates that transformers 4.57.6 gives, in the first
# case those of its processors. An empty file would leave it without any.
SIBLINGS: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, str]]] = {
    "null, and the file of a processor": (
        {"chat_template": None},
        {"chat_template.json": json.dumps({"chat_template": "P"})},
        {KEY: "P"},
    ),
    "a file without its default": (
        {"chat_template": "C"},
        {"additional_chat_templates/rag.jinja": "R"},
        {f"{KEY}.rag": "R"},
    ),
    "files and a list": (
        {"chat_template": [{"name": "default", "template": "C"}]},
        {"chat_template.jinja": "D", "additional_chat_templates/rag.jinja": "R"},
        {KEY: "D", f"{KEY}.rag": "R"},
    ),
    "a list": (
        {"chat_template": [{"name": "default", "template": "C"}, {"name": "tool_use", "template": "T"}]},
        {},
        {KEY: "C", f"{KEY}.tool_use": "T"},
    ),
    "an object": ({"chat_template": {"default": "C", "tool_use": "T"}}, {}, {KEY: "C", f"{KEY}.tool_use": "T"}),
    "an empty file": ({"chat_template": "C"}, {"chat_template.jinja": ""}, {KEY: "C"}),
    "one text": ({"chat_template": "C"}, {}, {KEY: "C"}),
}


@pytest.mark.parametrize("name", SIBLINGS)
@pytest.mark.parametrize("family", ["qwen3", "llama2-spm", "llama-hfvocab"])
def test_siblings(name: str, family: str, tmp_path: Path) -> None:
    settings, files, templates = SIBLINGS[name]
    folder = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    edit(folder / "tokenizer_config.json", lambda config: config.update(settings))
    for file, text in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
    found = keys(converted(folder, vocab_only=True, pre_tokenizer="qwen2" if family == "qwen3" else None))
    named = [key.removeprefix(f"{KEY}.") for key in templates if key != KEY]
    assert {key: value for key, value in found.items() if key.startswith(KEY)} == {
        **templates,
        **({f"{KEY}s": named} if named else {}),
    }


def test_a_folder_with_tekken_alone(tmp_path: Path) -> None:
    folder = write_tekken(tmp_path / "hf")
    bundled = keys(converted(folder))[KEY]
    (folder / "chat_template.jinja").write_text(NEW)
    assert keys(converted(folder))[KEY] == NEW
    assert keys(converted(folder, as_reference=True))[KEY] == bundled
