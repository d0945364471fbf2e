"""A model or an option with a pipe or a device in place of a file: commands refuse it at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import tiny_llama
from command_line import Forge


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


special = pytest.mark.parametrize("make", [pipe, device])

MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json", "README.md",
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "preprocessor_config.json",
)  # fmt: skip


@special
@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_model_with_a_special_file_is_refused_or_does_without(
    tmp_path: Path, forge: Forge, name: str, make: Callable[[Path], None]
) -> None:
    folder = tiny_llama(tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    ran = forge("plan", folder, "--vocab-only" if name != "model.safetensors" else "-v")
    assert ran.code in (0, 4)
    assert ran.code == 0 or "not a regular file" in ran.err or "no tokenizer" in ran.err


@special
@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "model", "--metadata", "special.gguf"),
        ("plan", "model", "--tensor-type-file", "special.gguf"),
        ("plan", "model", "--imatrix", "special.gguf"),
        ("plan", "model", "--target-model-dir", "folder"),
        ("quantize", "special.gguf", "Q8_0"),
        ("inspect", "special.gguf"),
        ("verify", "special.gguf"),
        ("compare", "special.gguf", "special.gguf"),
        ("report", "special.gguf", "-o", "page.html"),
        ("split", "special.gguf", "part", "--split-max-tensors", "1"),
        ("edit", "special.gguf", "--remove", "a"),
        ("edit", "vocabulary.gguf", "-o", "new.gguf", "--chat-template", "special.gguf"),
        ("job", "work", "special.gguf", "--task", "0"),
        ("job", "finish", "special.gguf"),
    ],
)
def test_an_option_that_names_a_special_file(
    tmp_path: Path,
    forge: Forge,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    make: Callable[[Path], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tiny_llama(tmp_path / "model")
    assert forge("convert", folder, "--vocab-only", "-o", "vocabulary.gguf").code == 0
    make(tmp_path / "special.gguf")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").symlink_to("../special.gguf")
    ran = forge(*(str(folder) if argument == "model" else argument for argument in arguments))
    assert ran.code in (2, 4)
    assert "not a regular file" in ran.err
