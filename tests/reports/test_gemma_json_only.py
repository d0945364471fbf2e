"""Gemma without tokenizer.model: tokenizer.json has all that is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_cpp import token_ids
from synthetic import FAMILIES, write_checkpoint
from tokenizer_folders import edit
from vocabularies import TEXTS, converted, keys

from gguf_forge import UsageError

OWN_IDS = {
    "the file": [2, 274, 263, 270, 277, 266],
    "simple tile more": [2, 279, 277, 286, 291, 266, 264, 277, 266, 272, 268, 281, 273],
    "then": [2, 274, 280, 262],
    "Ünique 3": [2, 201, 162, 278, 277, 297, 285, 273, 272, 57],
}


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3"])
def test_the_ids_are_the_models_own(family: str, made: Callable[..., Path]) -> None:
    file = converted(made(family))
    found = keys(file)
    assert (found["model"], found["pre"], found["add_space_prefix"]) == ("llama", "default", False)
    assert token_ids(file, list(OWN_IDS)) == list(OWN_IDS.values())


def test_a_pre_tokenizer_of_words_is_refused(made: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="not split into words"):
        converted(made("gemma3"), pre_tokenizer="llama-bpe")


def test_a_token_beyond_the_embedding_is_left_out(made: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = made("gemma3")
    before = keys(converted(folder))["tokens"]

    def append(tokenizer: dict[str, Any]) -> None:
        token = {**tokenizer["added_tokens"][0], "id": len(before), "content": "<image_soft_token>"}
        tokenizer["added_tokens"].append(token)

    edit(folder / "tokenizer.json", append)
    assert keys(converted(folder))["tokens"] == before
    assert "are left out" in caplog.text


# The families whose folders have both files, and what their tokenizer.model says.
@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3-text", "phi3"])
def test_with_and_without_tokenizer_model(family: str, tmp_path: Path) -> None:
    folder = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    with_model = token_ids(converted(folder), TEXTS)
    (folder / "tokenizer.model").unlink()
    assert token_ids(converted(folder), TEXTS) == with_model
