"""Folders in Mistral's own form: which they are, and what their parameters become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import tensor_bytes, write_safetensors

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.mistral_form import has_mistral_form, read_params
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.local.folder import LocalFolder


def write_params(folder: Path, **params: Any) -> Path:
    (folder / "params.json").write_text(json.dumps(params))
    return folder


def write_shard(folder: Path, name: str) -> None:
    write_safetensors(folder / name, {name: ("F32", [4], tensor_bytes(name, "F32", [4]))})


def test_a_folder_of_both_forms_is_of_transformers(tmp_path: Path) -> None:
    assert not has_mistral_form(LocalFolder(tmp_path))
    assert has_mistral_form(LocalFolder(write_params(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    assert not has_mistral_form(LocalFolder(tmp_path))


def test_parameters_name_a_class_and_the_storage_of_weights(tmp_path: Path) -> None:
    plain = read_params(LocalFolder(write_params(tmp_path, dim=4)))
    assert plain == {"dim": 4, "architectures": ["params.json"]}
    quantized = read_params(LocalFolder(write_params(tmp_path, quantization={"qformat_weight": "fp8_e4m3"})))
    assert quantized["quantization_config"] == {"quant_method": "fp8", "weight_block_size": None}


@pytest.mark.parametrize("quantization", [{"qformat_weight": "int3"}, "fp8", {}])
def test_other_storage_is_refused(tmp_path: Path, quantization: object) -> None:
    with pytest.raises(UnsupportedError, match="weights quantized to"):
        read_params(LocalFolder(write_params(tmp_path, quantization=quantization)))


def test_its_shards_are_called_consolidated(tmp_path: Path) -> None:
    write_params(tmp_path, dim=4)
    write_shard(tmp_path, "model.safetensors")
    with pytest.raises(UnsupportedError, match=r"no file is called consolidated\*\.safetensors"):
        Checkpoint.open(tmp_path, native=True)
    write_shard(tmp_path, "consolidated-00001-of-00001.safetensors")
    with Checkpoint.open(tmp_path, native=True) as checkpoint:
        assert list(checkpoint.tensors) == ["consolidated-00001-of-00001.safetensors"]
        assert checkpoint.config["dim"] == 4


def test_without_parameters(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"params\.json"):
        Checkpoint.open(tmp_path, native=True)
