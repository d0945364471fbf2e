"""`edit`: what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Forge, listing

from gguf_forge import convert, open_gguf


@pytest.fixture
def source(model: Path, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return convert(model, tmp_path / "in" / "m.gguf", types="Q4_0")[0].path


def keys(path: Path) -> dict[str, object]:
    with open_gguf(path) as gguf:
        return gguf.metadata


def test_options(forge: Forge, source: Path) -> None:
    Path("t.jinja").write_text("{{ a }}\n", encoding="utf-8")
    ran = forge(
        "edit", source, "--set", "general.name=Mine", "--override-kv", "llama.context_length=int:4096",
        "--set", 'general.tags=[str]:["a", "b"]', "--remove", "general.type", "--rename", "general.size_label=x",
        "--chat-template", "t.jinja", "--pre-tokenizer", "llama-bpe", "--special-token", "eos=<s>",
        "--special-token-by-id", "pad=3",
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    assert "general.name\n  - Tiny  (STRING)\n  + Mine  (STRING)\n" in ran.out
    assert "general.size_label -> x\n" in ran.out
    assert "general.type\n  - model  (STRING)\n" in ran.out
    found = keys(source)
    assert "general.type" not in found
    expected = {
        "general.name": "Mine",
        "llama.context_length": 4096,
        "general.tags": ("a", "b"),
        "x": "1.2M",
        "tokenizer.chat_template": "{{ a }}\n",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 3,
    }
    assert {name: found[name] for name in expected} == expected


def test_templates_of_a_tokenizer_config(forge: Forge, source: Path) -> None:
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    Path("tokenizer_config.json").write_text(json.dumps({"chat_template": named}), encoding="utf-8")
    assert forge("edit", source, "--chat-template-config", "tokenizer_config.json").code == 0
    found = keys(source)
    assert (found["tokenizer.chat_template"], found["tokenizer.chat_template.tool_use"]) == ("d", "t")
    assert found["tokenizer.chat_templates"] == ("tool_use",)


def test_dry_runs_write_nothing(forge: Forge, source: Path) -> None:
    before = source.read_bytes()
    ran = forge("edit", source, "--set", "general.name=Mine", "--dry-run")
    assert (ran.code, "to be written" in ran.out) == (0, True)
    ran = forge("edit", source, "--set", "general.name=Mine", "--dry-run", "-o", source.parent / "no" / "m.gguf")
    assert (ran.code, ran.err) == (0, "")
    ran = forge("edit", source, "--set", "general.name=Mine", "--dry-run", "-o", source / "m.gguf")
    assert "editing would be refused" in ran.err
    assert source.read_bytes() == before
    assert listing(source.parent) == ["m.gguf"]


def test_json(forge: Forge, source: Path) -> None:
    with open_gguf(source) as gguf:
        header = gguf.tensors[0].offset
    ran = forge("edit", source, "-o", "out.gguf", "--set", "general.name=Mine", "--remove", "general.type", "--json")
    assert ran.json == {
        "schema": 1,
        "file": str(source),
        "path": "out.gguf",
        "written": True,
        "size": Path("out.gguf").stat().st_size,
        "header_bytes": {"old": header, "new": header - 32},
        "changes": [
            {"key": "general.type", "old": {"type": "STRING", "value": "model"}, "new": None},
            {
                "key": "general.name",
                "old": {"type": "STRING", "value": "Tiny"},
                "new": {"type": "STRING", "value": "Mine"},
            },
        ],
        "tensors": [],
    }
    again = forge("edit", "out.gguf", "--set", "general.name=Mine", "--json").json
    assert (again["written"], again["changes"]) == (False, [])
    assert "nothing changes" in forge("edit", "out.gguf", "--set", "general.name=Mine").out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "there is nothing to change"),
        (["--set", "x"], 2, "is not KEY=VALUE"),
        (["--set", "x=y"], 2, "is a new key: give its type"),
        (["--set", "a=1", "--set", "a=2"], 2, "--set names a twice"),
        (["--special-token", "eos=x", "--special-token-by-id", "eos=2"], 2, "names eos twice"),
        (["--rename", "x"], 2, "has no = between two words"),
        (["--special-token", "eos"], 2, "for example eos=<|im_end|>"),
        (["--special-token-by-id", "eos=x"], 2, "is not the number of a token"),
        (["--chat-template", "missing.jinja"], 4, "the file is missing"),
        (["--chat-template", "latin.jinja"], 4, "not valid UTF-8 at byte 1"),
        (["--chat-template", "empty.jinja"], 2, "the chat template is empty"),
        (["--chat-template", "none.json"], 2, "the chat template is empty"),
        (["--set", "general.alignment=8"], 8, "cannot be changed"),
    ],
)
def test_mistakes(forge: Forge, source: Path, arguments: list[str], code: int, message: str) -> None:
    Path("latin.jinja").write_bytes(b"a\xe4")
    Path("empty.jinja").write_bytes(b"")
    Path("none.json").write_bytes(b"{}")
    before = source.read_bytes()
    ran = forge("edit", source, *arguments)
    assert (ran.code, message in ran.err) == (code, True), ran.err
    assert source.read_bytes() == before


@pytest.mark.parametrize("name", ["bad.jinja", "tokenizer_config.json", "--set"])
def test_a_template_that_cannot_be_parsed(forge: Forge, source: Path, name: str) -> None:
    broken = "{{ a }}\n{% for"
    Path("bad.jinja").write_text(broken)
    Path("tokenizer_config.json").write_text(json.dumps({"chat_template": broken}))
    change = ["--set", f"tokenizer.chat_template=str:{broken}"] if name == "--set" else ["--chat-template", name]
    before = source.read_bytes()
    for more in ([], ["--dry-run"]):
        ran = forge("edit", source, *change, *more)
        assert ran.code == 4 and "the chat template is broken: line 2: " in ran.err and "--force" in ran.err
    assert source.read_bytes() == before
    forced = forge("edit", source, *change, "--force")
    assert forced.code == 0 and "the chat template is broken: line 2: " in forced.err
    # a template that was there before stands in no other edit's way
    assert forge("edit", source, "--set", "general.name=Mine").err == ""


def test_a_template_that_does_not_suit_the_vocabulary(forge: Forge, source: Path) -> None:
    Path("t.jinja").write_text("<|im_start|>{{ messages }}")
    ran = forge("edit", source, "--chat-template", "t.jinja")
    assert ran.code == 0 and "writes <|im_start|>, which the vocabulary does not have" in ran.err


def test_keys_that_readers_miss(forge: Forge, source: Path) -> None:
    for change in (["--remove", "tokenizer.ggml.tokens"], ["--rename", "llama.block_count=llama.blocks"]):
        ran = forge("edit", source, "-o", "out.gguf", "--overwrite", *change)
        assert ran.code == 0 and f"does not load a file without {change[1].partition('=')[0]}" in ran.err
    assert forge("edit", source, "-o", "out.gguf", "--overwrite", "--remove", "general.type").err == ""


def test_an_edit_in_place_says_so(forge: Forge, source: Path) -> None:
    assert "written in place" in forge("edit", source, "--set", "general.name=Mine").out
    assert "in place" not in forge("edit", source, "--set", "general.name=Other", "-o", "out.gguf").out


def test_hostile_values_stay_text(forge: Forge, source: Path) -> None:
    ran = forge("edit", source, "--set", "a\x1b[2J=str:b\x1b[2J", "--rename", "general.name=\x1b]0;x\x07")
    assert ran.code == 0
    assert all(char.isprintable() or char == "\n" for char in ran.out + ran.err)
