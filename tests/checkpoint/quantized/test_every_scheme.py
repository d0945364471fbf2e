"""Every scheme through all that works with a source: the words of a plan, a proof of the file, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Forge
from corpus import CORPUS, Cases

from gguf_forge import convert, report, verify_gguf
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.logical import logical_tensors
from gguf_forge.checkpoint.quantized import quantization_of, schemes
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.dequantized import stored_as

# A case of each scheme: its name, and what the plan says of its quantized weights.
STORED = {
    "quantized/qwen3-autoround": ("AutoRound", {"AutoRound 4 bit, g128"}),
    "quantized/qwen2-awq": ("AWQ", {"AWQ 4 bit, g64"}),
    "quantized/llama3-bitnet": ("BitNet", {"BitNet 2 bit, per tensor"}),
    "quantized/llama3-bnb-nf4-dq": ("bitsandbytes", {"bitsandbytes NF4, g64"}),
    "quantized/qwen2-bnb-fp4": ("bitsandbytes", {"bitsandbytes FP4, g64"}),
    "quantized/qwen2-bnb-int8": ("bitsandbytes", {"bitsandbytes 8 bit, per row"}),
    "quantized/llama3-ct-fp8-channel": ("compressed-tensors", {"compressed-tensors FP8, per row"}),
    "quantized/qwen2-ct-groups": (
        "compressed-tensors",
        {"compressed-tensors 4 bit, g64", "compressed-tensors 8 bit, g128"},
    ),
    "quantized/llama3-ct-nvfp4": ("compressed-tensors", {"NVFP4"}),
    "quantized/llama3-eetq-int8": ("EETQ", {"EETQ 8 bit, per row"}),
    "quantized/llama3-fbgemm-fp8": ("FBGEMM FP8", {"FP8, per row"}),
    "quantized/qwen3-fp8-skip": ("FP8", {"FP8, block 128x128"}),
    "quantized/llama3-fp8-e5m2": ("FP8", {"FP8 E5M2, block 128x128"}),
    "quantized/mistral-fp8-tensor": ("FP8", {"FP8, per tensor"}),
    "quantized/qwen2-gptq3": ("GPTQ", {"GPTQ 3 bit, g64"}),
    "quantized/qwen2-gptq4-desc": ("GPTQ", {"GPTQ 4 bit, g64"}),
    "quantized/mistral-gptq4-nogroup": ("GPTQ", {"GPTQ 4 bit, per row"}),
    "quantized/llama3-hqq-4bit": ("HQQ", {"HQQ 4 bit, g64"}),
    "quantized/qwen3moe-mlx-4bit": ("MLX", {"MLX 4 bit, g64", "MLX 8 bit, g64"}),
    "quantized/qwen3-mlx-mxfp4": ("MLX", {"MLX MXFP4"}),
    "quantized/qwen3-modelopt-mixed": ("ModelOpt", {"ModelOpt FP8, per tensor", "NVFP4"}),
    "quantized/llama3-quanto-int8": ("quanto", {"quanto 8 bit, per row"}),
    "quantized/qwen3-torchao-int8": ("torchao", {"torchao 8 bit, per row"}),
}
# Quark has no case of its own, and MXFP4 of GPT-OSS, DeepSeek V4 and MiMo V2 is repacked by their families' tests.
_ELSEWHERE = {"Quark", "MXFP4", "FP4 and FP8 of DeepSeek V4", "MXFP4 beside FP8"}
_FLOATS = {"BF16", "F16", "F32"}
pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not there")


def pre_tokenizer(name: str) -> str | None:
    """What the case takes for its shortened vocabulary."""
    told: str | None = json.loads((CORPUS / name / "case.json").read_text()).get("pre_monkeypatch")
    return told


def test_every_scheme_is_here() -> None:
    assert {scheme for scheme, _ in STORED.values()} | _ELSEWHERE == {scheme.name for scheme in schemes()}


@pytest.mark.parametrize("name", STORED)
def test_a_plan_says_how_weights_are_stored(name: str, cases: Cases) -> None:
    scheme, words = STORED[name]
    with Checkpoint.of(LocalFolder(cases.folder_of(CORPUS / name) / "hf")) as checkpoint:
        quantization = quantization_of(checkpoint)
        assert quantization is not None
        assert scheme in {each.name for each in schemes() if each.fits(quantization, {})}
        assert {stored_as(expr) for expr in logical_tensors(checkpoint).values()} - _FLOATS == words


def test_commands_show_it(cases: Cases, forge: Forge) -> None:
    name = "quantized/qwen2-gptq3"
    line = ("plan", str(cases.folder_of(CORPUS / name) / "hf"), "-t", "Q8_0", "--pre-tokenizer", pre_tokenizer(name))
    assert "GPTQ 3 bit, g64" in forge(*line).out
    tensors = forge(*line, "--json").file["tensors"]
    assert {tensor["source_type"] for tensor in tensors} == {"GPTQ 3 bit, g64", "F16"}


@pytest.mark.parametrize("name", STORED)
def test_files_are_proved_and_reported(name: str, cases: Cases, tmp_path: Path) -> None:
    source = cases.folder_of(CORPUS / name) / "hf"
    kind = "auto" if "NVFP4" in STORED[name][1] else "Q8_0"
    (written,) = convert(source, tmp_path / "m.gguf", types=kind, pre_tokenizer=pre_tokenizer(name))
    assert verify_gguf(written.path, source, pre_tokenizer=pre_tokenizer(name)).ok
    told = report(written.path, tmp_path / "m.html", source=source)
    assert all(tensor.error is not None for tensor in told.tensors if not tensor.name.endswith("scale"))
