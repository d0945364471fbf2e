"""Tokenizers that take all memory, hang or end the process in the library: an error, and nothing on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import listing
from tokenizer_folders import copy_folder

from gguf_forge.errors import ForgeError, InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import auto_tokenizer, bpe, read_vocabulary
from gguf_forge.tokenizer.pre_tokenizers import similar
from gguf_forge.tokenizer.sentencepiece_json import steps_of


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def normalizers(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def pre_tokenizers(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


_PREFIX_SPACE = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": False}
BOMBS: dict[str, dict[str, Any]] = {
    "decoders behind normalizers": {
        "decoder": {
            "type": "Sequence",
            "normalizers": [{}],
            "decoders": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}] * 5,
        }
    },
    "a regex that matches nothing": normalizers(*[replace("", "x")] * 60),
    "a look-ahead": normalizers(*[replace("(?=.)", "x")] * 60),
    "compatibility forms": normalizers(*[replace(".", "\ufdfa"), {"type": "NFKD"}] * 10),
    "bytes as letters": normalizers(*[replace(".", "\U0001f917"), {"type": "ByteLevel"}] * 16),
    "small letters": normalizers(*[replace(".", "\u0130"), {"type": "Lowercase"}] * 40),
    "prefix spaces": pre_tokenizers(*[split("."), _PREFIX_SPACE] * 30),
    "backtracking": pre_tokenizers(*[split("(?:\\D|\\D){20}\\d{50}")] * 8),
    "a panic": pre_tokenizers(split("(\\D|\\D)*\\d{50}")),
    "deep nesting": {"normalizer": json.loads('{"type":"Sequence","normalizers":[' * 120 + "]}" * 120)},
    "a huge padding": {
        "padding": {
            "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        }
    },
    "a template of many tokens": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "a", "type_id": 0}}] * 20_000,
            "pair": [],
            "special_tokens": {"a": {"id": "a", "ids": [0] * 20_000, "tokens": ["a"] * 20_000}},
        }
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_tokenizer, "_MEMORY", 192 << 20)
    monkeypatch.setattr(auto_tokenizer, "_SECONDS", 2)


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("pre_tokenizer", [None, "llama-bpe"])
def test_a_bomb(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, pre_tokenizer: Any
) -> None:
    monkeypatch.setenv("RUST_BACKTRACE", "1")
    folder = copy_folder("llama3-bpe", tmp_path / "hf")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **BOMBS[name]}))
    before = listing(folder)
    try:
        read_vocabulary(LocalFolder(folder), {"vocab_size": 512}, bpe, pre_tokenizer=pre_tokenizer)
    except ForgeError as error:
        assert (error.file is not None and error.file.parent == folder) or error.file == folder
        assert len(str(error)) < 8000
    assert capfd.readouterr() == ("", "")
    assert listing(folder) == before


def test_what_is_refused_is_said(tmp_path: Path) -> None:
    folder = copy_folder("llama3-bpe", tmp_path / "hf")
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    for name, problem in (
        ("a look-ahead", "needs more than 192 MiB of memory"),
        ("backtracking", "needs more than 2 seconds"),
    ):
        path.write_text(json.dumps({**whole, **BOMBS[name]}))
        with pytest.raises(InputError, match=rf"tokenizer\.json: the tokenizer cannot be used: it {problem}"):
            read_vocabulary(LocalFolder(folder), {"vocab_size": 512}, bpe)


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer"])
def test_many_steps_are_read_once_each(part: str) -> None:
    """Taking steps from the front of a list moved all others each time."""
    inner = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}[part]

    class Counted(list[Any]):
        """A list that cannot be joined to another one."""

        def __add__(self, other: Any) -> Any:
            raise AssertionError("the list was copied")

    whole = {part: {"type": "Sequence", inner: Counted([{"type": "Sequence", inner: Counted()}] * 1000)}}
    assert similar(whole) == ()
    assert list(steps_of(whole[part])) == []


def test_steps_come_in_order() -> None:
    steps = [{"type": "A"}, {"type": "Sequence", "normalizers": [{"type": "B"}, {"type": "C"}]}, {"type": "D"}]
    assert [step["type"] for step in steps_of({"type": "Sequence", "normalizers": steps})] == ["A", "B", "C", "D"]
