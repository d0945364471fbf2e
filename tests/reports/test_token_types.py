"""The type of a token can be changed, in a vocabulary that no command line can hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_gguf
from command_line import Forge

from gguf_forge import UsageError, open_gguf

Made = Callable[..., Path]
TYPES = "tokenizer.ggml.token_type"


def values(path: Path, key: str = TYPES) -> list[Any]:
    with open_gguf(path) as gguf:
        return list(gguf.metadata[key])


WAYS = {
    "words": ["--token-type", "<|tool_call>=control", "--token-type", "1001=control"],
    "items": ["--set", f"{TYPES}[1000]=3", "--set", f"{TYPES}[1001]=i32:3"],
    "a file": ["--set", f"{TYPES}=@types.json"],
}


@pytest.mark.parametrize("way", WAYS)
def test_two_tokens_become_control_tokens(way: str, made: Made, forge: Forge) -> None:
    file = made() / "vocab.gguf"
    wanted = values(file)
    wanted[1000] = wanted[1001] = 3
    Path("types.json").write_text(json.dumps(wanted), encoding="utf-8")
    items = forge("edit", file, *WAYS[way], "--dry-run", "--json").json["changes"][0]["items"]
    assert items == [{"index": 1000, "old": 4, "new": 3}, {"index": 1001, "old": 4, "new": 3}]
    run = forge("edit", file, *WAYS[way])
    assert "  [1000] 4 -> 3\n  [1001] 4 -> 3\n" in run.out
    assert values(file) == wanted


@pytest.mark.parametrize(
    ("token", "kind", "at", "number"),
    [("<s>", "normal", 1, 1), ("0", "user_defined", 0, 4), ("2", "user-defined", 2, 4), ("</s>", "UNUSED", 2, 5)],
)
def test_words_and_numbers(token: str, kind: str, at: int, number: int, tmp_path: Path, forge: Forge) -> None:
    file = tiny_gguf(tmp_path)
    before = values(file)
    assert forge("edit", file, "--token-type", f"{token}={kind}").code == 0
    assert values(file) == [*before[:at], number, *before[at + 1 :]]


@pytest.mark.parametrize(
    ("setting", "key", "at", "value"),
    [
        ("tokenizer.ggml.tokens[3]=new", "tokenizer.ggml.tokens", 3, "new"),
        ("tokenizer.ggml.scores[0]=-1.5", "tokenizer.ggml.scores", 0, -1.5),
    ],
)
def test_items_of_other_lists(setting: str, key: str, at: int, value: Any, tmp_path: Path, forge: Forge) -> None:
    file = tiny_gguf(tmp_path)
    before = values(file, key)
    assert forge("edit", file, "--set", setting).code == 0
    assert values(file, key) == [*before[:at], value, *before[at + 1 :]]


def test_values_from_files(tmp_path: Path, forge: Forge) -> None:
    file = tiny_gguf(tmp_path)
    Path("tags.json").write_text('["a", "b"]', encoding="utf-8")
    Path("name.json").write_text('"from a file"', encoding="utf-8")
    run = forge(
        "edit", file, "--set", "general.tags=[str]:@tags.json", "--set", "general.name=@name.json",
        "--set", "general.author=str:@name.json",
    )  # fmt: skip
    assert run.code == 0
    with open_gguf(file) as gguf:
        found = [gguf.metadata[f"general.{name}"] for name in ("tags", "name", "author")]
    assert found == [("a", "b"), "from a file", "@name.json"]


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--token-type", "<none>=control", "the vocabulary has no token <none>"),
        ("--token-type", "999999=control", "999999 is not a token"),
        ("--token-type", "<s>=special", "there is no type of token special"),
        ("--token-type", "control", "is not TOKEN=TYPE"),
        ("--set", f"{TYPES}[999999]=3", "has no item 999999"),
        ("--set", f"{TYPES}[0]=u32:3", "is a list of INT32, not UINT32"),
        ("--set", f"{TYPES}[0]=x", "INT32, which cannot be x"),
        ("--set", "general.name[0]=x", "there is no list general.name"),
        ("--set", "nothing[0]=u32:1", "there is no list nothing"),
        ("--set", f"{TYPES}=@missing.json", "missing.json"),
        ("--set", f"{TYPES}=@wrong.json", "is a list of INT32"),
    ],
)
def test_nonsense(option: str, value: str, problem: str, tmp_path: Path, forge: Forge) -> None:
    file = tiny_gguf(tmp_path)
    before = file.read_bytes()
    Path("wrong.json").write_text('{"a": 1}', encoding="utf-8")
    run = forge("edit", file, option, value)
    assert run.code in (UsageError.exit_code, 4)
    assert problem in run.err
    assert file.read_bytes() == before
