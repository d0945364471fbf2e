from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import read_vocabulary, rwkv_world
from gguf_forge.tokenizer.checks import Place
from gguf_forge.tokenizer.rwkv import FILE, _tokens

TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
LINES = ["1 '\\x00' 1", "2 'a b' 3", "3 b'\\xff\\n' 2", '4 "it\'s" 4', "5 '☃' 3"]


def read(folder: Path, lines: list[str], size: int = 8, **config: Any) -> dict[str, Any]:
    (folder / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        k: v.data for k, v in read_vocabulary(LocalFolder(folder), {"vocab_size": size, **config}, rwkv_world).items()
    }


def test_tokens_are_as_python_shows_bytes(tmp_path: Path) -> None:
    found = read(tmp_path, LINES)
    assert found[TOKENS] == (
        b"<s>", b"\\x00", b"a b", b"\\xff\\n", b"it's", b"\\xe2\\x98\\x83", b"[PAD6]", b"[PAD7]",
    )  # fmt: skip
    assert found[TYPES] == (3, 1, 1, 1, 1, 1, 5, 5)


@given(
    st.lists(st.binary(min_size=1) | st.text(min_size=1, alphabet=st.characters(codec="utf-8")), min_size=1, max_size=5)
)
def test_any_token_as_python_writes_it(tokens: list[bytes | str]) -> None:
    raw = [token if isinstance(token, bytes) else token.encode() for token in tokens]
    lines = "".join(f"{n} {token!r} {len(data)}\n" for n, (token, data) in enumerate(zip(tokens, raw, strict=True)))
    assert _tokens(lines, Place(FILE)) == [repr(data)[2:-1].encode() for data in raw]


def test_the_end_of_a_turn_and_a_template(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 9}))
    found = read(tmp_path, LINES)
    ids = [(key, found[key]) for key in found if key.endswith("token_id")]
    assert ids == [
        ("tokenizer.ggml.eos_token_id", 0),
        ("tokenizer.ggml.eot_token_id", 261),
        ("tokenizer.ggml.bos_token_id", 0),
    ]
    assert "'Assistant:'" in found["tokenizer.chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "own"}))
    assert read(tmp_path, LINES)["tokenizer.chat_template"] == "own"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1 'a'",
        "1 a 1",
        "x 'a' 1",
        "1 'a' 2",
        "1 'a' -1",
        "1 'a' 'b' 2",
        "1 __import__('os') 1",
        "1 '\\xZZ' 1",
        "1 '\\ud800' 3",
        "1 b'é' 2",
        "1 " + "(" * 5000 + " 1",
        "1 " + "'a'" * 1000 + " 1000",
        "1 'a' " + "9" * 5000,
    ],
)
def test_a_line_that_is_no_token(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match="line 2 that is not a number, a token and its length"):
        read(tmp_path, [LINES[0], line])


def test_a_vocabulary_larger_than_the_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 6 tokens, and the model's vocab_size is 5"):
        read(tmp_path, LINES, 5)
