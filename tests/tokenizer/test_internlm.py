from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sentencepiece_models import piece
from tokenizer_folders import edit

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import Reader, internlm2, internlm3, read_vocabulary

TOKENS, SCORES, TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type"))
EOS = "tokenizer.ggml.eos_token_id"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pieces = (b"<s>", 3), (b"</s>", 3), (b"[UNUSED_TOKEN_0]", 4), (b"\0", 4), (b"<|im_end|>", 4), (b"a", 1), (b"b", 1)
    data = piece(b"<unk>", kind=2) + b"".join(piece(text, kind=kind) for text, kind in pieces)
    (tmp_path / "tokenizer.model").write_bytes(data)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": False}))
    return tmp_path


def read(folder: Path, size: int = 8, reader: Reader = internlm2) -> dict[str, Any]:
    return {
        key: value.data for key, value in read_vocabulary(LocalFolder(folder), {"vocab_size": size}, reader).items()
    }


def test_internlm2_writes_no_byte_zero(folder: Path) -> None:
    found = read(folder)
    assert found[TOKENS][:6] == (b"<unk>", b"<s>", b"</s>", b"[UNUSED_TOKEN_0]", "🐉".encode(), b"<|im_end|>")
    assert found[TYPES][:6] == (2, 3, 3, 5, 1, 1)
    assert (len(found[TOKENS]), found[EOS]) == (8, 2)


def test_internlm2_appends_what_added_tokens_json_has_and_ends_with_the_turn(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"[A]": 999}')
    decoder = {"5": {"content": "<|im_end|>", "special": True}, "8": {"content": "▁b"}}
    edit(folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder=decoder))
    found = read(folder)
    assert (found[TOKENS][8:], found[SCORES][8:], found[TYPES][8:]) == (("▁b".encode(),), (-1000.0,), (4,))
    assert (found[TYPES][5], found[EOS]) == (3, 5)


def test_internlm2_refuses_what_does_not_fit(folder: Path) -> None:
    with pytest.raises(InputError, match="and the model's vocab_size is 999"):
        read(folder, 999)
    edit(folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder={"8": {"content": "x"}}))
    with pytest.raises(InputError, match="is token 8, and the vocabulary has 8"):
        read(folder)


@pytest.mark.parametrize(("special", "eos"), [(True, 5), (False, 2)])
def test_internlm3_ends_with_the_turn_where_it_is_special(folder: Path, special: bool, eos: int) -> None:
    decoder = {"5": {"content": "<|im_end|>", "special": special}}
    edit(folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder=decoder))
    found = read(folder, 14, internlm3)
    assert list(found)[4:6] == [TYPES, "tokenizer.ggml.add_space_prefix"]
    assert found[EOS] == eos
    assert found[TOKENS][13] == b"[PAD13]"
