"""A vocabulary is known by its content, whatever its class is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import FAMILIES, write_checkpoint
from vocabularies import converted, keys


def test_phi4_saved_by_transformers_5(made: Callable[..., Path]) -> None:
    found = keys(converted(made(), pre_tokenizer="gpt-4o"))
    assert (found["model"], found["pre"]) == ("gpt2", "gpt-4o")
    assert found["merges"] == ["t h", "th e", "Ġ the"]


# Families that the reference knows with tokenizer.model only, or with another class.
@pytest.mark.parametrize("family", ["gemma2", "phi3", "orion"])
@pytest.mark.parametrize("name", ["TokenizersBackend", "PythonBackend", None])
def test_a_byte_level_vocabulary(family: str, name: str | None, tmp_path: Path) -> None:
    folder = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    for file in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"):
        (folder / file).unlink(missing_ok=True)
    other = write_checkpoint(FAMILIES / "qwen2", tmp_path / "qwen2")
    (folder / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({} if name is None else {"tokenizer_class": name}))
    size = json.loads((other / "config.json").read_text())["vocab_size"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": max(size, config["vocab_size"])}))
    found = keys(converted(folder, pre_tokenizer="qwen2", vocab_only=True))
    assert (found["model"], found["pre"]) == ("gpt2", "qwen2")
