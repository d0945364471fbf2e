"""Hints are true for the input: each test is advice that once led astray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import tiny_llama
from synthetic import FAMILIES, write_checkpoint
from tokenizer_folders import edit
from weights import Held, rewritten

from gguf_forge import ForgeError, InputError, UsageError, convert, plan
from gguf_forge.planning.open_model import open_model


def refused(folder: Path, **more: object) -> ForgeError:
    with pytest.raises(ForgeError) as caught:
        plan(folder, **more)
    return caught.value


def with_weights(folder: Path, data: bytes) -> Path:
    model = tiny_llama(folder)
    (model / "model.safetensors").write_bytes(data)
    return model


def header_of(value: object, data: bytes = b"") -> bytes:
    raw = json.dumps(value).encode()
    return len(raw).to_bytes(8, "little") + raw + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234",
        header_of({})[:9],
        header_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
    ],
    ids=["empty", "short", "in the header", "in the data"],
)
def test_files_that_are_cut_short_are_downloaded_again(tmp_path: Path, data: bytes) -> None:
    error = refused(with_weights(tmp_path, data))
    assert error.hint == "the file is cut short, or another one: download it again"


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(9)),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        ({"__metadata__": {"step": 5}}, b""),
    ],
    ids=["shape", "bytes behind", "gap", "metadata"],
)
def test_intact_files_that_break_a_rule_may_have_been_written_so(tmp_path: Path, header: object, data: bytes) -> None:
    error = refused(with_weights(tmp_path, header_of(header, data)))
    assert "if its checksum is the published one, save the model again" in str(error.hint)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_the_folder_in_place_of_the_folder(tmp_path: Path, name: str) -> None:
    model = tiny_llama(tmp_path)
    with pytest.raises(UsageError, match="a file of a checkpoint") as caught:
        open_model(model / name)
    assert caught.value.hint == f"give its folder: {model}"


def test_weights_alone(tmp_path: Path) -> None:
    alone = (tiny_llama(tmp_path) / "model.safetensors").rename(tmp_path / "model.safetensors")
    assert "beside it" in str(refused(alone).hint)


def test_a_gguf_file_with_the_ending_of_another_one(tmp_path: Path) -> None:
    (made,) = convert(tiny_llama(tmp_path), tmp_path / "a.gguf", types="BF16")
    renamed = made.path.rename(tmp_path / "a.bin")
    assert plan(renamed, types="Q8_0")


def test_fewer_layers_than_the_config_says(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    edit(model / "config.json", lambda config: config.update(num_hidden_layers=5))
    assert "the config says 5 layers, and the checkpoint has 2" in str(refused(model).hint)


def test_a_layer_that_lacks_a_tensor(tmp_path: Path) -> None:
    def without(tensors: dict[str, Held]) -> dict[str, Held]:
        return {name: tensor for name, tensor in tensors.items() if "layers.1.mlp.up_proj" not in name}

    error = refused(rewritten(tiny_llama(tmp_path), tmp_path / "without", without))
    assert error.hint == "is a shard missing? The config says 2 layers"


def test_fewer_experts_than_the_config_says(tmp_path: Path) -> None:
    model = write_checkpoint(
        FAMILIES / "mixtral",
        tmp_path / "hf",
        change=lambda tensors: [tensors.pop(name) for name in list(tensors) if ".experts.3." in name],
    )
    assert "speaks of 4 experts" in str(refused(model).hint)


def test_more_experts_than_the_config_says(tmp_path: Path) -> None:
    model = write_checkpoint(FAMILIES / "mixtral", tmp_path / "hf", config={"num_local_experts": 3})
    assert "of the same model" in str(refused(model).hint)


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ({"model_type": "qwen2"}, '"architectures": ["Qwen2ForCausalLM"]'),
        ({"model_type": "qwen3_moe"}, '"architectures": ["Qwen3MoeForCausalLM"]'),
        ({"model_type": "something"}, '"architectures": ["LlamaForCausalLM"]'),
        ({"_class_name": "UNet2DConditionModel"}, "a diffusers pipeline"),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_a_config_without_a_class(tmp_path: Path, config: dict[str, str], hint: str) -> None:
    model = tiny_llama(tmp_path)
    (model / "config.json").write_text(json.dumps(config))
    assert hint in str(refused(model).hint)


def test_quantized_weights_whose_config_lacks_the_quantization(tmp_path: Path) -> None:
    def packed(tensors: dict[str, Held]) -> dict[str, Held]:
        name = "model.layers.0.mlp.up_proj"
        return {key: tensor for key, tensor in tensors.items() if key != f"{name}.weight"} | {
            f"{name}.qweight": ("I32", [1, 1], bytes(4)),
            f"{name}.scales": ("F16", [1, 1], bytes(2)),
        }

    error = refused(rewritten(tiny_llama(tmp_path), tmp_path / "packed", packed))
    assert "parts of quantized weights, and config.json does not say how" in str(error.hint)


def test_an_adapter_whose_weights_are_not_here(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError) as caught:
        open_model(tmp_path)
    assert caught.value.hint == "also download adapter_model.safetensors"
