"""What `dequantize --safetensors` gives is converted to the same file again, or it refuses; there is nothing third.

All families, projectors, drafts and cases take minutes, so a sample is tested: parts that together have each operation
that a plan may hold, each way to store a model in several files, and names that a file alone does not tell.
"""

from __future__ import annotations

from pathlib import Path

import projectors
import pytest
from corpus import Cases
from led_back import parts_of_cases
from round_trip import round_trip
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import Request

_FAMILIES = (
    *("chameleon", "gptoss-bf16", "granite-switch", "llama-base", "llama-mixed-dtypes", "minimax-text-01"),
    *("phi3-longrope", "qwen35moe", "rwkv7", "xlmroberta-reranker"),
)
_PROJECTORS = (
    *("deepseek-v4-dspark", "gemma4-e2b", "lfm2-audio", "mimo-v2.5", "muse-glimmer-assistant", "nemotron-nano-omni"),
    *("phi-4-vision", "qwen3-tts"),
)
_CASES = (
    *("bitnet", "gemma3n", "kimi-k3", "lfm2-colbert", "mamba-ssm", "muse-glimmer--mmproj"),
    *("nomicbert-v2-moe", "qwen4exp"),
)


def _check(request: Request, folder: Path) -> None:
    """The same file, or a refusal, by the file alone; and the same file with config.json."""
    folder.mkdir(exist_ok=True)
    alone = round_trip(request, folder / "alone", by_config=False)
    assert alone == "same" or alone.startswith("refused: ")
    assert alone == "same" or round_trip(request, folder / "known", by_config=True) == "same"


@pytest.mark.parametrize("family", _FAMILIES)
def test_families(family: str, tmp_path: Path) -> None:
    source = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    _check(Request(source=str(source), pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer), tmp_path)


@pytest.mark.parametrize("name", _PROJECTORS)
def test_projectors_and_drafts(name: str, tmp_path: Path) -> None:
    (description,) = (path for path in projectors.descriptions() if path.stem == name)
    source = projectors.write(description, tmp_path / "hf")
    _check(Request(source=str(source), **projectors.options(description, tmp_path)), tmp_path)


@pytest.mark.parametrize("name", _CASES)
def test_cases(name: str, cases: Cases, tmp_path: Path) -> None:
    ((_, request),) = parts_of_cases(cases, name)
    _check(request, tmp_path / "trip")


def test_what_the_file_lacks_is_told(tmp_path: Path) -> None:
    """A file that cannot be led back names the fact that is why, whatever else is given."""
    source = write_checkpoint(FAMILIES / "pocket-tts", tmp_path / "hf")
    request = Request(source=str(source), pre_tokenizer=read_description(FAMILIES / "pocket-tts").pre_tokenizer)
    for by_config in (False, True):
        told = round_trip(request, tmp_path / f"{by_config}", by_config=by_config)
        assert told.startswith("refused: token_embd.weight: ") and "a matrix that is not in the file" in told
