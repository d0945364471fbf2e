"""tekken.json is a whole tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llama_cpp import token_ids
from reports import MadeInput
from synthetic import FAMILIES, write_checkpoint
from tekken_folders import SPECIAL, write_tekken
from tokenizer_folders import edit
from vocabularies import converted, keys

from gguf_forge import InputError


def test_tekken_alone(made: MadeInput) -> None:
    file = converted(made())
    found = keys(file)
    assert (found["model"], found["pre"]) == ("gpt2", "tekken")
    assert found["tokens"][:5] == list(SPECIAL)
    assert found["token_type"][:6] == [3, 3, 3, 3, 3, 1]
    assert found["tokens"][261:] == ["th", "the", "Ġthe"]
    assert found["merges"] == ["t h", "th e", "Ġ the"]
    assert [found[f"{role}_token_id"] for role in ("bos", "eos", "unknown", "padding")] == [1, 2, 0, 2]
    assert token_ids(file, ["the the[INST]"]) == [[1, 262, 263, 3]]


def test_with_a_padding_token(tmp_path: Path) -> None:
    found = keys(converted(write_tekken(tmp_path / "hf", [*SPECIAL, "<pad>"])))
    assert found["padding_token_id"] == 5
    assert found["tokens"][6] == "<SPECIAL_6>"


def test_another_class(tmp_path: Path) -> None:
    folder = write_tekken(tmp_path / "hf")
    edit(folder / "config.json", lambda config: config.update(architectures=["Ministral3ForCausalLM"]))
    assert keys(converted(folder, vocab_only=True))["pre"] == "tekken"


@pytest.mark.parametrize("missing", ["<s>", "</s>", "<unk>"])
def test_without_a_token_that_is_needed(missing: str, tmp_path: Path) -> None:
    folder = write_tekken(tmp_path / "hf", ["x" if text == missing else text for text in SPECIAL])
    with pytest.raises(InputError, match=f"no special token '{missing}'"):
        converted(folder)


def test_beside_tokenizer_json_it_does_not_count(tmp_path: Path) -> None:
    folder = write_checkpoint(FAMILIES / "llama-base", tmp_path / "hf")
    before = keys(converted(folder, pre_tokenizer="llama-bpe"))
    (folder / "tekken.json").write_text(json.dumps({}))
    assert keys(converted(folder, pre_tokenizer="llama-bpe")) == before
