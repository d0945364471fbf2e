from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import copy_folder, edit

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import Reader, phi3, read_vocabulary, real_vocabulary_size, sentencepiece

TOKENS, SCORES, TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type"))


def read(folder: Path, size: Any = 512, reader: Reader = sentencepiece) -> dict[str, Any]:
    return {
        key: value.data for key, value in read_vocabulary(LocalFolder(folder), {"vocab_size": size}, reader).items()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_folder("mistral", tmp_path / "hf")


def test_holes_are_padding_and_the_excess_is_left_out(folder: Path) -> None:
    few, many = read(folder, 300), read(folder, 600)
    assert many[TOKENS][:300] == few[TOKENS]
    assert (many[TOKENS][599], many[SCORES][599], many[TYPES][599]) == (b"[PAD599]", -10000.0, 5)
    assert len(few[TOKENS]) == len(few[SCORES]) == len(few[TYPES]) == 300


def test_special_ids_out_of_the_vocabulary_are_left_out(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(eos_token_id=512, pad_token_id=-1, bos_token_id=[1, 2]))
    found = read(folder)
    assert not {f"tokenizer.ggml.{kind}_token_id" for kind in ("eos", "padding", "bos")} & set(found)


def test_the_vocabulary_size_per_layer_goes_first(folder: Path) -> None:
    config = {"vocab_size": 512, "vocab_size_per_layer_input": 500}
    assert len(read_vocabulary(LocalFolder(folder), config, sentencepiece)[TOKENS].data) == 500
    assert real_vocabulary_size(LocalFolder(folder), config) == 500


def test_added_tokens(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"[A]": 500, "late": 999, "\\u0000": 501}')
    decoder = {
        "502": {"content": "<|x|>"},
        "503": {"content": "▁two▁words"},
        "504": {"content": "[S]", "special": True},
        "2000": {"content": "out of range"},
    }
    edit(folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder=decoder))
    found = read(folder)
    assert found[TOKENS][500:505] == (b"[A]", b"\x00", b"<|x|>", b" two words", b"[S]")
    assert found[TYPES][500:505] == (4, 4, 3, 4, 3)
    assert set(found[SCORES][500:505]) == {-1000.0}


def test_phi3_goes_by_the_mark_alone_and_reads_tokenizer_json(tmp_path: Path) -> None:
    folder = copy_folder("phi3", tmp_path / "hf")
    edit(
        folder / "tokenizer_config.json",
        lambda config: config["added_tokens_decoder"].update({"500": {"content": "<|▁x|>"}}),
    )
    edit(
        folder / "tokenizer.json",
        lambda tokenizer: tokenizer["added_tokens"].append({"id": 501, "content": "<|y|>", "special": True}),
    )
    found = read(folder, reader=phi3)
    assert found[TOKENS][500:502] == ("<|▁x|>".encode(), b"<|y|>")
    assert found[TYPES][500:502] == (4, 3)


@pytest.mark.parametrize("id", [-1, "7", 1.5, None, True, 1 << 40])
def test_an_added_id_that_is_none(folder: Path, id: object) -> None:
    (folder / "added_tokens.json").unlink()
    edit(folder / "tokenizer_config.json", lambda config: config.pop("added_tokens_decoder"))
    (folder / "added_tokens.json").write_text(json.dumps({"[A]": id}))
    with pytest.raises(InputError, match=r"added_tokens\.json.*must be a token id"):
        read(folder)


@pytest.mark.parametrize(
    ("decoder", "told"),
    [
        ([], "must be an object"),
        ({"x": {"content": "a"}}, "not a token id"),
        ({"-1": {"content": "a"}}, "not a token id"),
        ({"9" * 30: {"content": "a"}}, "not a token id"),
        ({"5": "a"}, "must be an object"),
        ({"5": {}}, "content must be a string"),
        ({"5": {"content": "a", "special": "yes"}}, "special must be true or false"),
        ({"5": {"content": "\ud800"}}, "lone surrogate"),
    ],
)
def test_a_broken_added_tokens_decoder(folder: Path, decoder: object, told: str) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder=decoder))
    with pytest.raises(InputError, match=told):
        read(folder)


@pytest.mark.parametrize("size", [0, -5, "512", 1.5, True, 1 << 40])
def test_an_absurd_vocabulary_size(folder: Path, size: object) -> None:
    with pytest.raises(InputError, match=r"config\.json: vocab_size must be a number of tokens"):
        read(folder, size)


def test_phi3_refuses_what_does_not_fit(tmp_path: Path) -> None:
    folder = copy_folder("phi3", tmp_path / "hf")
    with pytest.raises(InputError, match=r"has 480 tokens, and the model's vocab_size is 300"):
        read(folder, 300, phi3)
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer["added_tokens"].append({"id": 999, "content": "z"}))
    with pytest.raises(InputError, match="token 999, and the model's vocab_size is 512"):
        read(folder, 512, phi3)
