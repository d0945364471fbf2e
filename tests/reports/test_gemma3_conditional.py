"""Gemma 3 with a vision tower: the file of the language model, as of a checkpoint that holds nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reports import MadeInput
from weights import Held, file_of, rewritten

from gguf_forge import GgufFile, UnsupportedError, convert, open_gguf, plan


def opened(folder: Path, out: Path) -> GgufFile:
    (made,) = convert(folder, out, types="BF16")
    return open_gguf(made.path)


@pytest.mark.parametrize("names", ["new", "old"])
def test_the_tensors_are_those_of_the_language_model(made: MadeInput, tmp_path: Path, names: str) -> None:
    with opened(made(names), tmp_path / "a.gguf") as file, opened(made("text"), tmp_path / "text.gguf") as text:
        assert {tensor.name: tensor.data().tobytes() for tensor in file.tensors} == {
            tensor.name: tensor.data().tobytes() for tensor in text.tensors
        }
        keys = {key for key in {*file.metadata, *text.metadata} if not key.startswith("general.")}
        assert [key for key in keys if file.typed_metadata.get(key) != text.typed_metadata.get(key)] == []


def test_a_fine_tune_that_wraps_all_names(made: MadeInput, tmp_path: Path) -> None:
    """Unsloth and heretic save the model of PEFT."""

    def wrapped(tensors: dict[str, Held]) -> dict[str, Held]:
        return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}

    folder = made("new")
    assert file_of(rewritten(folder, tmp_path / "wrapped", wrapped)) == file_of(folder)


def test_a_class_that_is_not_that_of_the_weights(made: MadeInput, tmp_path: Path) -> None:
    """People change the class in config.json to that of the text model, which the names then contradict."""
    folder = made("new")
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config") | config | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
    (folder / "config.json").write_text(json.dumps(text))
    try:
        with opened(folder, tmp_path / "a.gguf") as file:
            assert not any(tensor.name.startswith(("v.", "mm.")) for tensor in file.tensors)
    except UnsupportedError as error:
        assert "config.json" in str(error.hint)


@pytest.mark.parametrize("names", ["new", "old"])
def test_the_projector_is_offered(made: MadeInput, caplog: pytest.LogCaptureFixture, names: str) -> None:
    plan(made(names))
    assert any("--mmproj" in message for message in caplog.messages)
