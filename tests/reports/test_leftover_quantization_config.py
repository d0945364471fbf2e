"""A quantization in config.json, and weights that are not quantized."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_llama
from reports import MadeInput
from weights import Held, file_of, rewritten


def with_config(model: Path, folder: Path, **more: Any) -> Path:
    rewritten(model, folder, lambda tensors: tensors)
    config = json.loads((folder / "config.json").read_text()) | more
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def test_the_weights_are_taken_as_they_are(made: MadeInput, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made()
    plain = with_config(folder, tmp_path / "plain", quantization_config=None)
    assert file_of(folder, pre_tokenizer="qwen2") == file_of(plain, pre_tokenizer="qwen2")
    assert any("no weight is quantized" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "said",
    [
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
        {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
        {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        {"quant_method": "fbgemm_fp8"},
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
        {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
        {"quant_method": "torchao", "quant_type": "int4_weight_only"},
        {"quant_method": "hqq", "quant_config": {}},
        {"quant_method": "quanto", "weights": "int8"},
        {"quant_method": "eetq", "weights": "int8"},
        {"quant_method": "higgs"},
        {"load_in_4bit": True},
    ],
    ids=lambda said: said.get("quant_method", "none"),
)
def test_every_method(tmp_path: Path, said: dict[str, Any]) -> None:
    model = tiny_llama(tmp_path)
    left = with_config(model, tmp_path / "left", quantization_config=said)
    assert file_of(left) == file_of(model)


def test_the_section_of_mlx(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    left = with_config(model, tmp_path / "left", quantization={"bits": 4, "group_size": 64})
    assert file_of(left) == file_of(model)


@pytest.mark.parametrize("dtype", ["I64", "I32", "BOOL"])
def test_a_buffer_that_is_no_code(tmp_path: Path, dtype: str) -> None:
    """Old checkpoints hold positions and masks, which no file gets."""
    model = tiny_llama(tmp_path)
    sizes = {"I64": 8, "I32": 4, "BOOL": 1}

    def with_buffer(tensors: dict[str, Held]) -> dict[str, Held]:
        return tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": (dtype, [4], bytes(4 * sizes[dtype]))}

    left = with_config(
        rewritten(model, tmp_path / "buffer", with_buffer),
        tmp_path / "left",
        quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True},
    )
    assert file_of(left) == file_of(model)
