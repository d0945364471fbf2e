"""Tensors that are written as one if the user wants it, against llama.cpp's converter.

The expected digests in tests/fused.json were made by reference/make_fused.py; none comes from this project.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from quantized import digest
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import convert, open_gguf, verify_gguf
from gguf_forge.errors import UsageError

RUNS = json.loads((Path(__file__).parents[1] / "fused.json").read_text())


def converted(family: str, scratch: Path, **how: Any) -> Path:
    checkpoint = write_checkpoint(FAMILIES / family, scratch / "hf")
    pre_tokenizer = read_description(FAMILIES / family).pre_tokenizer
    (made,) = convert(checkpoint, scratch / "m.gguf", pre_tokenizer=pre_tokenizer, **how)
    return made.path


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['family']} {run['option']}")
def test_the_file_is_the_one_of_the_reference(run: dict[str, Any], tmp_path: Path) -> None:
    option = run["option"].removeprefix("--").replace("-", "_")
    file = converted(run["family"], tmp_path, types="auto", **{option: True})
    assert digest(file.read_bytes()) == [run["file"]["size"], run["file"]["sha256"]]


def test_a_quantized_file_has_the_joined_tensors(tmp_path: Path) -> None:
    with open_gguf(converted("qwen2", tmp_path, types="Q4_K_M", fuse_qkv=True)) as gguf:
        found = {tensor.name: tensor.shape for tensor in gguf.tensors if ".0.attn_" in tensor.name}
    assert set(found) == {f"blk.0.attn_{name}" for name in ("norm.weight", "qkv.weight", "qkv.bias", "output.weight")}


def test_experts_that_llama_cpp_does_not_know_as_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"llama\.cpp knows no such tensors of a qwen3moe model"):
        converted("qwen3moe", tmp_path, types="auto", fuse_gate_up_exps=True)


def test_a_model_without_such_tensors_is_converted_as_ever(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = converted("deepseek3", tmp_path / "plain", types="auto").read_bytes()
    assert converted("deepseek3", tmp_path / "joined", types="auto", fuse_qkv=True).read_bytes() == plain
    assert "fuse_qkv=True: this model has nothing that becomes one tensor" in caplog.text


def test_verify_sees_that_tensors_are_joined(tmp_path: Path) -> None:
    file = converted("llama3-bpe", tmp_path, types="Q4_K_M", fuse_qkv=True)
    pre_tokenizer = read_description(FAMILIES / "llama3-bpe").pre_tokenizer
    assert verify_gguf(file, tmp_path / "hf", pre_tokenizer=pre_tokenizer).ok
