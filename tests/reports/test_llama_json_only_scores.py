"""A SentencePiece-like tokenizer.json without tokenizer.model gives the ids that the model was trained with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_cpp import token_ids
from synthetic import FAMILIES, write_checkpoint
from tokenizer_folders import edit
from tokenizers import Tokenizer
from vocabularies import TEXTS, converted, keys

from gguf_forge import InputError, UsageError


def expected(folder: Path, texts: list[str]) -> list[list[int]]:
    """The ids that the `tokenizers` library gives, with the special tokens around them."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in texts]


def test_the_ids_are_the_models_own(made: Callable[..., Path]) -> None:
    file = converted(made())
    assert keys(file)["scores"][259:269] == [-float(rank) for rank in range(10)]
    assert token_ids(file, ["then", "the file", "simple tile more"]) == [
        [1, 261, 277, 259],
        [1, 268, 267, 274, 263],
        [1, 269, 276, 274, 283, 288, 263, 261, 274, 263, 269, 265, 278, 270],
    ]


def test_as_the_reference_writes_it(made: Callable[..., Path]) -> None:
    assert set(keys(converted(made(), as_reference=True))["scores"]) == {-1000.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(FAMILIES / "llama-hfvocab", tmp_path / "hf")


def test_a_trained_vocabulary(folder: Path) -> None:
    assert token_ids(converted(folder), TEXTS) == expected(folder, TEXTS)


def without_prefix(tokenizer: dict[str, Any]) -> None:
    """What transformers 5 saves: nothing is prepended by the normalizer, and the class is TokenizersBackend."""
    tokenizer["normalizer"] = None
    tokenizer["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


def test_what_transformers_5_saves(folder: Path) -> None:
    edit(folder / "tokenizer.json", without_prefix)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "TokenizersBackend"}))
    assert token_ids(converted(folder), TEXTS) == expected(folder, TEXTS)


def test_a_vocabulary_that_puts_no_space_before_a_text(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer["normalizer"]["normalizers"].pop(0))
    file = converted(folder)
    assert keys(file)["add_space_prefix"] is False
    assert token_ids(file, TEXTS) == expected(folder, TEXTS)


@pytest.mark.parametrize("decoder", [None, {"type": "ByteFallback"}])
def test_another_decoder(decoder: object, folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(decoder=decoder))
    assert token_ids(converted(folder), TEXTS) == expected(folder, TEXTS)


def test_a_family_that_expects_byte_level_vocabularies(folder: Path, tmp_path: Path) -> None:
    other = write_checkpoint(FAMILIES / "qwen3moe", tmp_path / "other")
    size = json.loads((other / "config.json").read_text())["vocab_size"]
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (other / name).unlink(missing_ok=True)
    (other / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    file = converted(other)
    assert len(keys(file)["tokens"]) == size
    assert keys(file)["model"] == "llama"
    assert token_ids(file, TEXTS) == expected(folder, TEXTS)


def test_a_pre_tokenizer_of_words_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="not split into words") as caught:
        converted(folder, pre_tokenizer="llama-bpe")
    assert caught.value.words.hint == "leave --pre-tokenizer out"
    assert keys(converted(folder, pre_tokenizer="default"))["model"] == "llama"


def test_an_added_token_is_found_before_pairs_are_joined(folder: Path) -> None:
    def add(tokenizer: dict[str, Any]) -> None:
        id = tokenizer["model"]["vocab"].pop("z")
        tokenizer["model"]["vocab"]["[tile]"] = id
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": id, "content": "[tile]"})
        tokenizer["added_tokens"][-1]["special"] = False

    edit(folder / "tokenizer.json", add)
    file = converted(folder)
    found = keys(file)
    assert found["token_type"][found["tokens"].index("[tile]")] == 4
    assert token_ids(file, ["a[tile]"])[0][-1] == found["tokens"].index("[tile]")


def test_xverse(tmp_path: Path) -> None:
    folder = write_checkpoint(FAMILIES / "xverse", tmp_path / "hf")
    found = keys(converted(folder))
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    first = "".join(merges[0]) if isinstance(merges[0], list) else merges[0].replace(" ", "")
    assert found["scores"][found["tokens"].index(first)] == 0.0
    assert "scores" not in keys(converted(folder, as_reference=True))


def test_tokens_beyond_the_embedding_are_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = json.loads((folder / "config.json").read_text())["vocab_size"]

    def append(tokenizer: dict[str, Any]) -> None:
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": size, "content": "<soft>"})

    edit(folder / "tokenizer.json", append)
    assert len(keys(converted(folder))["tokens"]) == size
    assert f"tokenizer.json has {size + 1} tokens; those from {size} on are left out" in caplog.text
    with pytest.raises(InputError):
        converted(folder, as_reference=True)


def test_merges_that_do_not_join_all_pairs_are_spoken_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A vocabulary that the `tokenizers` library trained has only the merges that were counted."""
    converted(folder)
    assert "no merge joins" not in caplog.text

    def drop(tokenizer: dict[str, Any]) -> None:
        merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in tokenizer["model"]["merges"]]
        made = ["".join(merge) for merge in merges]
        last = max(index for index, text in enumerate(made) if made.count(text) > 1)
        tokenizer["model"]["merges"] = [merge for index, merge in enumerate(merges) if index != last]

    edit(folder / "tokenizer.json", drop)
    converted(folder)
    assert "no merge joins" in caplog.text
