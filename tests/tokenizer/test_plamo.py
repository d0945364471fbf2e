from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import edit

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import Reader, plamo, plamo3, read_vocabulary

TOKENS, SCORES, TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type"))
LINES: list[Any] = [
    ["<|plamo:unk|>", 0.0, "UNKNOWN", 0],
    ["<|plamo:bos|>", 0, "CONTROL"],
    ["<0x00>", 0.0, "BYTE"],
    ["<|plamo:x|>", -1.5, "NORMAL"],
    ["a", -2.5],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, LINES)
    settings = {"bos_token": "<|plamo:bos|>", "pad_token": None, "unk_token": "<|plamo:unk|>", "chat_template": "one"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


def write(folder: Path, lines: list[Any]) -> None:
    (folder / "tokenizer.jsonl").write_text("".join(f"{json.dumps(line)}\n\n" for line in lines))


def read(folder: Path, reader: Reader = plamo) -> dict[str, Any]:
    return {key: value.data for key, value in read_vocabulary(LocalFolder(folder), {"vocab_size": 7}, reader).items()}


def test_tokens(folder: Path) -> None:
    found = read(folder)
    assert found[TOKENS][3:] == (b"<|plamo:x|>", b"a", b"[PAD1]", b"[PAD2]")
    assert found[SCORES] == (0.0, 0.0, 0.0, -1.5, -2.5, -1000.0, -1000.0)
    assert found[TYPES] == (2, 3, 6, 3, 1, 5, 5)
    assert [(key[15:], found[key]) for key in list(found)[5:]] == [
        ("bos_token_id", 1), ("unknown_token_id", 0), ("eot_token_id", 4), ("add_space_prefix", False),
    ]  # fmt: skip


def test_plamo3_has_a_chat_template(folder: Path) -> None:
    assert read(folder, plamo3)["tokenizer.chat_template"] == "one"
    (folder / "chat_template.jinja").write_text("two")
    assert read(folder, plamo3)["tokenizer.chat_template"] == "two"


@pytest.mark.parametrize(
    "line", [{}, [], ["a"], [5, 0.0], ["a", "0"], ["a", True], ["a", float("inf")], ["\ud800", 0.0], "a", None]
)
def test_a_line_that_is_no_token(folder: Path, line: object) -> None:
    write(folder, [*LINES, line])
    with pytest.raises(InputError, match="line 11"):
        read(folder)


@pytest.mark.parametrize("line", ["[" * 100_000, '["a", 0.0', '["a", ' + "9" * 5000 + "]"])
def test_a_line_that_is_no_json(folder: Path, line: str) -> None:
    (folder / "tokenizer.jsonl").write_text(line)
    with pytest.raises(InputError, match="line 1"):
        read(folder)


@pytest.mark.parametrize(("token", "told"), [("none", "which is not a token"), (5, "must be a string")])
def test_a_special_token_that_there_is_not(folder: Path, token: object, told: str) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(eos_token=token))
    with pytest.raises(InputError, match=told):
        read(folder)
