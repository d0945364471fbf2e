from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sentencepiece_models import piece
from tokenizer_folders import copy_folder, edit

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import (
    Reader,
    as_control,
    bpe,
    bundled_chat_template,
    chat_template,
    chatglm3,
    default_chat_template,
    in_order,
    own_chat_template,
    read_vocabulary,
    sentencepiece,
    suppressed_tokens,
    token_by_text,
)

TEMPLATE = "tokenizer.chat_template"
TYPES = "tokenizer.ggml.token_type"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy_folder("mistral", tmp_path / "hf")
    edit(tmp_path / "hf/tokenizer_config.json", lambda config: config.update(chat_template="configured"))
    return tmp_path / "hf"


def read(folder: Path, *readers: Reader) -> dict[str, Any]:
    found = read_vocabulary(LocalFolder(folder), {"vocab_size": 512}, in_order(*readers))
    return {key: value.data for key, value in found.items()}


def test_a_template_beside_the_default_comes_first(folder: Path) -> None:
    found = read(folder, chat_template("{document}", "rerank"), sentencepiece)
    assert list(found)[:2] == [f"{TEMPLATE}.rerank", "tokenizer.chat_templates"]
    assert (found[f"{TEMPLATE}.rerank"], found[TEMPLATE]) == ("{document}", "configured")


def test_which_template_goes_first(folder: Path) -> None:
    assert read(folder, sentencepiece, chat_template("fixed"))[TEMPLATE] == "fixed"
    assert read(folder, sentencepiece, default_chat_template("rwkv-world"))[TEMPLATE] == "configured"
    assert read(folder, bundled_chat_template("deepseek-v4"), sentencepiece)[TEMPLATE] == "configured"
    assert read(folder, sentencepiece, own_chat_template())[TEMPLATE] == "configured"
    assert "{%" in read(folder, sentencepiece, own_chat_template("minimax-m1"))[TEMPLATE]
    (folder / "chat_template.jinja").write_text("own")
    assert read(folder, sentencepiece, own_chat_template("minimax-m1"))[TEMPLATE] == "own"
    edit(folder / "tokenizer_config.json", lambda config: config.pop("chat_template"))
    (folder / "chat_template.jinja").unlink()
    assert "User: " in read(folder, sentencepiece, default_chat_template("rwkv-world"))[TEMPLATE]


def test_a_token_by_its_text(folder: Path) -> None:
    decoder = {"5": {"content": "<|im_end|>"}, "6": {"content": "<|im_end|>"}}
    edit(folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder=decoder))
    found = read(folder, sentencepiece, token_by_text("<|im_end|>", "bos", "eos"), token_by_text("none", "unk"))
    assert [found[f"tokenizer.ggml.{kind}_token_id"] for kind in ("bos", "eos")] == [5, 5]


def test_suppressed_tokens(folder: Path) -> None:
    assert "tokenizer.ggml.suppress_tokens" not in read(folder, suppressed_tokens, sentencepiece)
    (folder / "generation_config.json").write_text(json.dumps({"suppress_tokens": [7, 3]}))
    assert next(iter(read(folder, suppressed_tokens, sentencepiece).items())) == (
        "tokenizer.ggml.suppress_tokens", (7, 3),
    )  # fmt: skip


@pytest.mark.parametrize("value", ["7", {"a": 1}, [-1], [1 << 31], [True], 7])
def test_suppressed_tokens_that_are_none(folder: Path, value: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"suppress_tokens": value}))
    with pytest.raises(InputError, match=r"generation_config\.json: suppress_tokens"):
        read(folder, suppressed_tokens)


@pytest.mark.parametrize(("family", "reader", "text"), [("mistral", sentencepiece, "▁t"), ("qwen2", bpe, "th")])
def test_a_token_made_a_control_token(tmp_path: Path, family: str, reader: Reader, text: str) -> None:
    folder = copy_folder(family, tmp_path / "hf")
    found, plain = (
        read_vocabulary(LocalFolder(folder), {"vocab_size": 512}, one, pre_tokenizer="qwen2")
        for one in (as_control(text, reader), reader)
    )
    changed = [id for id, pair in enumerate(zip(found[TYPES].data, plain[TYPES].data, strict=True)) if pair == (3, 1)]
    texts = plain["tokenizer.ggml.tokens"].data
    assert [texts[id] in (text, text.encode()) for id in changed] == [True]


def chatglm3_folder(folder: Path) -> Path:
    pieces = (b"<s>", 3), (b"</s>", 3), (b"a", 1), (b"b", 4)
    data = piece(b"<x>", kind=2) + b"".join(piece(text, -1.0, kind) for text, kind in pieces)
    (folder / "tokenizer.model").write_bytes(data)
    return folder


def test_chatglm3(tmp_path: Path) -> None:
    folder = chatglm3_folder(tmp_path)
    found = {k: v.data for k, v in read_vocabulary(LocalFolder(folder), {"padded_vocab_size": 16}, chatglm3).items()}
    assert found["tokenizer.ggml.pre"] == "chatglm-spm"
    assert found["tokenizer.ggml.tokens"][:6] == (b"<unk>", b"<bos>", b"<eos>", b"a", b"b", b"[MASK]")
    assert found["tokenizer.ggml.tokens"][13:] == (b"<|observation|>", b"[PAD14]", b"[PAD15]")
    assert found["tokenizer.ggml.scores"] == (0.0, -1.0, -1.0, -1.0, -1.0) + (0.0,) * 11
    assert found[TYPES] == (2, 3, 3, 1, 1) + (3,) * 9 + (5, 5)
    with pytest.raises(InputError, match="14 tokens, and the model's padded_vocab_size is 9"):
        read_vocabulary(LocalFolder(folder), {"padded_vocab_size": 9}, chatglm3)
