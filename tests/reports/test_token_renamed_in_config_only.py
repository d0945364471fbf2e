"""An error names the file and the token where two files contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reports import MadeInput
from synthetic import FAMILIES, write_checkpoint
from tokenizer_folders import edit
from vocabularies import converted, keys

from gguf_forge import InputError

FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def test_both_files_are_named(made: MadeInput) -> None:
    with pytest.raises(InputError) as caught:
        converted(made(), pre_tokenizer="qwen2")
    said = str(caught.value)
    assert "tokenizer_config.json: added_tokens_decoder.260 is '<|user|>'" in said
    assert "tokenizer.json's token 260 is '<|im_start|>'" in said
    assert "correct either" in said


def test_with_room_in_the_embedding_it_is_a_further_token(made: MadeInput) -> None:
    folder = made()
    edit(folder / "config.json", lambda config: config.update(vocab_size=264))
    found = keys(converted(folder, pre_tokenizer="qwen2", vocab_only=True))
    assert found["tokens"][260:264] == ["<|im_start|>", "<|im_end|>", "<|user|>", "[PAD263]"]


@pytest.mark.parametrize(
    "settings",
    [{"pad_token": "[PAD]"}, {"additional_special_tokens": ["[PAD]"]}, {"extra_special_tokens": {"x": "[PAD]"}}],
)
def test_a_token_that_tokenizer_json_lacks(settings: dict[str, Any], made: MadeInput) -> None:
    folder = made()
    edit(folder / "tokenizer_config.json", lambda config: (config.pop("added_tokens_decoder"), config.update(settings)))
    with pytest.raises(InputError) as caught:
        converted(folder, pre_tokenizer="qwen2")
    said = str(caught.value)
    assert "tokenizer_config.json" in said and "'[PAD]'" in said and "becomes token 262" in said
    assert "take '[PAD]' out of the file" in said


def test_a_token_that_tokenizer_json_has(tmp_path: Path) -> None:
    folder = write_checkpoint(FAMILIES / "llama3-bpe", tmp_path / "hf")
    edit(folder / "config.json", lambda config: config.update(vocab_size=config["vocab_size"] - 200))
    with pytest.raises(InputError, match=r"tokenizer\.json: the file has a token with id \d+ \('"):
        converted(folder, vocab_only=True, pre_tokenizer="llama-bpe")
