"""`dequantize`: what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Forge, listing

from gguf_forge import convert


@pytest.fixture
def source(model: Path, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return convert(model, tmp_path / "in" / "m-Q4_0.gguf", types="Q4_0")[0].path


def test_to_a_gguf_file(forge: Forge, source: Path) -> None:
    ran = forge("dequantize", source)
    assert (ran.code, "F32" in ran.out) == (0, True)
    assert listing(source.parent) == ["m-F32.gguf", "m-Q4_0.gguf"]
    made = forge("dequantize", source, "-t", "f16", "-o", "a.gguf", "--json").file
    assert (made["path"], made["type"]) == ("a.gguf", "F16")
    assert made["size"] == Path("a.gguf").stat().st_size


def test_to_a_checkpoint(forge: Forge, source: Path) -> None:
    planned = forge("dequantize", source, "--safetensors", "-o", "ck", "--dry-run", "--json")
    assert planned.code == 0
    assert listing(Path()) == []
    made = forge("dequantize", source, "--safetensors", "-o", "ck", "--split-max-size", "2M", "--json").file
    assert made["path"] == "ck/model.safetensors.index.json"
    assert made["size"] > planned.file["size"]
    assert made["tensors"][0] == {
        "name": "lm_head.weight",
        "shape": [256, 831],
        "source_type": "Q6_K",
        "type": "F32",
        "nbytes": 850944,
        "rule": None,
    }
    again = forge("dequantize", source, "--safetensors", "-o", "ck", "--split-max-size", "2M", "--dry-run")
    assert (again.code, "would be refused" in again.err) == (0, True)
    assert "model.layers.0.self_attn.q_proj.weight" in again.out


def test_what_a_checkpoint_lacks_is_said(forge: Forge, source: Path) -> None:
    told = "copy config.json and the tokenizer's files"
    assert (
        f"ck has the tensors alone: to load it, {told}" in forge("dequantize", source, "--safetensors", "-o", "ck").out
    )
    assert told not in forge("dequantize", source, "--safetensors", "-o", "quiet", "--quiet").out
    assert told not in forge("dequantize", source).out


def test_mistakes(forge: Forge, source: Path) -> None:
    assert forge("dequantize", source, "-t", "Q8_0").code == 2
    assert forge("dequantize", "missing.gguf").code == 4
    assert forge("dequantize", source, "--split-max-size", "x").code == 2
