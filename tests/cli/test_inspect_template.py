"""`gguf-forge inspect --template`: a chat template as it comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Forge
from raw_gguf import raw_gguf, write
from synthetic import FAMILIES, write_checkpoint
from vocabularies import converted

from gguf_forge import InputError

CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return converted(write_checkpoint(FAMILIES / "qwen3", tmp_path / "hf"), vocab_only=True, pre_tokenizer="qwen2")


def with_template(file: Path, template: str, forge: Forge) -> Path:
    text = file.with_suffix(".jinja")
    text.write_text(template)
    assert forge("edit", file, "--chat-template", text, "--force").code == 0
    return file


def test_a_chat(file: Path, forge: Forge) -> None:
    run = forge("inspect", with_template(file, CHATML, forge), "--template")
    assert run.out.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n")
    assert (run.code, run.err) == (0, "")
    shown = forge("inspect", file, "--template", "--json").json
    assert shown["templates"]["default"]["rendered"] == run.out[:-1]
    assert shown["problems"] == []


def test_a_template_that_refuses_the_system(file: Path, forge: Forge) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    run = forge("inspect", with_template(file, refusing, forge), "--template")
    assert run.out.startswith("<|im_start|>user\n")
    assert "takes no message of the system: no system" in run.err


def test_what_is_wrong_is_said(file: Path, forge: Forge) -> None:
    run = forge("inspect", with_template(file, "<|begin|>{{ messages[1].content }}", forge), "--template")
    assert run.out == "<|begin|>Hello, who are you?\n"
    assert "writes <|begin|>, which the vocabulary does not have" in run.err


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% if %}", "line 1: "),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "processor time"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('\x1b[31mred') }}", "\\x1b[31mred"),
    ],
)
def test_a_template_that_fails(template: str, told: str, file: Path, forge: Forge) -> None:
    run = forge("inspect", with_template(file, template, forge), "--template")
    assert (run.code, run.out) == (InputError.exit_code, "")
    assert "cannot be rendered" in run.err and told in run.err
    assert "\x1b" not in run.err


def test_control_characters_do_not_reach_the_terminal(file: Path, forge: Forge) -> None:
    run = forge("inspect", with_template(file, "{{ '\x1b[31m' }}", forge), "--template")
    assert run.out == "\\x1b[31m\n"


def test_a_file_without_one(tmp_path: Path, forge: Forge) -> None:
    run = forge("inspect", write(tmp_path, raw_gguf([], [])), "--template")
    assert run.code == InputError.exit_code
    assert "has no chat template" in run.err
