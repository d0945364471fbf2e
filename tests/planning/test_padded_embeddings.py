"""Embeddings with more rows than the vocabulary has tokens: llama.cpp loads a file only if both agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llama_cpp import token_ids
from synthetic import FAMILIES, read_description, write_checkpoint
from tekken_folders import write_tekken
from tokenizer_folders import edit
from vocabularies import TEXTS, converted, keys

from gguf_forge import InputError


@pytest.fixture(params=["qwen2", "llama3-bpe"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint whose vocab_size is 4 less than the rows of its embeddings, and still enough for its tokens."""
    folder = write_checkpoint(FAMILIES / request.param, tmp_path / "hf")
    edit(folder / "config.json", lambda config: config.update(vocab_size=config["vocab_size"] - 4))
    return folder


def pre_tokenizer(folder: Path) -> str:
    name = json.loads((folder / "config.json").read_text())["model_type"]
    return str(read_description(FAMILIES / {"qwen2": "qwen2", "llama": "llama3-bpe"}[name]).pre_tokenizer)


def test_further_rows_become_unused_tokens(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = pre_tokenizer(folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    file = converted(folder, pre_tokenizer=name)
    found = keys(file)
    assert found["tokens"][size:] == [f"[PAD{id}]" for id in range(size, size + 4)]
    assert found["token_type"][size:] == [5, 5, 5, 5]
    assert "the further rows become unused tokens" in caplog.text
    assert token_ids(file, TEXTS[:1])


def test_as_the_reference_writes_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert len(keys(converted(folder, pre_tokenizer=pre_tokenizer(folder), as_reference=True))["tokens"]) == size
    assert "llama.cpp loads no such file" in caplog.text


def test_scores_too(tmp_path: Path) -> None:
    folder = write_tekken(tmp_path / "hf")
    edit(folder / "tekken.json", lambda tekken: tekken["config"].update(default_num_special_tokens=10))
    edit(folder / "tekken.json", lambda tekken: tekken["config"].update(default_vocab_size=269))
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    found = keys(converted(folder))
    assert len(found["tokens"]) == len(found["scores"]) == len(found["token_type"]) == rows
    assert (found["tokens"][-1], found["scores"][-1]) == (f"[PAD{rows - 1}]", -10000)


def test_tokens_without_a_row_are_an_error(tmp_path: Path) -> None:
    folder = write_tekken(tmp_path / "hf")
    edit(folder / "tekken.json", lambda tekken: tekken["config"].update(default_num_special_tokens=1000))
    edit(folder / "tekken.json", lambda tekken: tekken["config"].update(default_vocab_size=1259))
    with pytest.raises(InputError, match="the vocabulary has 1259 tokens"):
        converted(folder)
