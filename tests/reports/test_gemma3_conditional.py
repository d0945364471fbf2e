"""Gemma 3 with a vision tower: the file of the language model, as of a checkpoint that holds nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reports import MadeInput
from synthetic import FAMILIES, write_checkpoint
from tokenizer_folders import edit
from weights import Held, file_of, rewritten

from gguf_forge import GgufFile, UnsupportedError, convert, open_gguf, plan
from gguf_forge.planning.open_model import open_model

ENCODERS = ("vision_tower", "multi_modal_projector")


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
    assert any("mmproj (encoders of pictures or sound)" in message for message in caplog.messages)


def contents(folder: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
    with open_model(folder) as model:
        return {name: (expr.shape, expr.rows(0, expr.n_rows).tobytes()) for name, expr in model.tensors().items()}


@pytest.mark.parametrize("names", ["new", "old"])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama3-bpe", "LlavaForConditionalGeneration"),
        ("qwen2", "Qwen2_5_VLForConditionalGeneration"),
        ("qwen3", "Qwen3VLForConditionalGeneration"),
    ],
)
def test_other_models_that_see(tmp_path: Path, family: str, name: str, names: str) -> None:
    """The tensors are those of the language model alone, under the names of older and of newer transformers."""

    def around(tensors: dict[str, Held]) -> dict[str, Held]:
        found = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
        if names == "new":
            found = {
                name.replace("model.", "model.language_model.", name.startswith("model.")): tensor
                for name, tensor in tensors.items()
            }
        at = "model." if names == "new" else ""
        return found | {f"{at}{part}.linear_1.weight": ("BF16", [4], bytes(8)) for part in ENCODERS}

    plain = write_checkpoint(FAMILIES / family, tmp_path / "plain")
    wanted, folder = contents(plain), rewritten(plain, tmp_path / "sees", around)
    edit(folder / "config.json", lambda config: config.update(text_config=dict(config), architectures=[name]))
    edit(folder / "config.json", lambda config: config["text_config"].pop("architectures"))
    assert contents(folder) == wanted
