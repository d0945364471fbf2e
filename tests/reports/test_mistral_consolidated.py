"""Mistral's own form: params.json, consolidated*.safetensors, and tekken.json or tokenizer.model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from reports import MadeInput
from safetensors import deserialize
from tekken_folders import write_tekken
from tokenizer_folders import edit

from gguf_forge import ForgeError, InputError, convert, open_gguf, plan

NAMES = {
    "tok_embeddings": "token_embd",
    "output": "output",
    "layers.0.attention.wv": "blk.0.attn_v",
    "layers.0.attention.wo": "blk.0.attn_output",
    "layers.1.feed_forward.w1": "blk.1.ffn_gate",
    "layers.1.feed_forward.w2": "blk.1.ffn_down",
    "layers.1.feed_forward.w3": "blk.1.ffn_up",
}


@pytest.fixture
def folder(made: MadeInput, tmp_path: Path) -> Path:
    """The report's folder with a whole tekken.json: the report's is a stub."""
    found = made()
    shutil.copy(write_tekken(tmp_path / "tekken") / "tekken.json", found)
    edit(
        found / "tekken.json",
        lambda tekken: tekken["config"].update(default_vocab_size=264, default_num_special_tokens=5),
    )
    return found


def test_it_converts(folder: Path, tmp_path: Path) -> None:
    stored = dict(deserialize((folder / "consolidated.safetensors").read_bytes()))
    (made,) = convert(folder, tmp_path / "a.gguf", types="BF16")
    with open_gguf(made.path) as file:
        assert file.metadata["general.architecture"] == "llama"
        found = {tensor.name: tensor.data() for tensor in file.tensors}
    for theirs, ours in NAMES.items():
        assert found[f"{ours}.weight"].tobytes() == bytes(stored[f"{theirs}.weight"]["data"])


def test_what_is_broken_is_named(made: MadeInput) -> None:
    with pytest.raises(InputError, match=r"tekken\.json: config\.default_vocab_size"):
        plan(made())


def test_in_several_files(folder: Path, tmp_path: Path) -> None:
    whole = folder / "consolidated.safetensors"
    before = convert(folder, tmp_path / "a.gguf", types="F16")[0].path.read_bytes()
    whole.rename(folder / "consolidated-00001-of-00001.safetensors")
    assert convert(folder, tmp_path / "b.gguf", types="F16")[0].path.read_bytes() == before


def test_without_its_weights(folder: Path) -> None:
    (folder / "consolidated.safetensors").unlink()
    with pytest.raises(InputError, match=r"the folder holds no consolidated\*\.safetensors"):
        plan(folder)


def test_without_params(folder: Path) -> None:
    (folder / "params.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: the file is missing") as caught:
        plan(folder)
    assert "it also needs params.json" in str(caught.value.hint)


def test_without_a_tokenizer(folder: Path) -> None:
    (folder / "tekken.json").unlink()
    with pytest.raises(ForgeError, match="no tokenizer") as caught:
        plan(folder)
    assert "tekken.json" in str(caught.value.hint)


def test_with_a_config_of_transformers_and_no_weights_of_it(folder: Path, tmp_path: Path) -> None:
    config = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ForgeError, match=r"no file is called model\*\.safetensors") as caught:
        plan(folder)
    assert "--mistral-format" in str(caught.value.words.hint)
    convert(folder, tmp_path / "a.gguf", types="BF16", mistral_format=True)
