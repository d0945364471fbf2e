"""llama.cpp itself loads the text models of the conformance corpus, and generates from them or embeds a text."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus import CORPUS, Cases, read_manifest, short
from llama_cpp_client import embedded, generated

from gguf_forge.cli import main

pytest.importorskip("xllamacpp", reason="there is no xllamacpp for this platform", exc_type=ImportError)

# Cases that llama.cpp does not run, and why. Each of these files is the one that llama.cpp's converter makes.
NOT_RUN = {
    "deepseek4": "the case's layers are narrower than the graph expects",
    "dflash-qwen3": "a draft, which needs its main model",
    "eagle3-llama3": "a draft, which needs its main model",
    "embeddinggemma": "the server stops at an assertion of its own",
    "exaone4": "the case's heads are wider together than the model, which the loader does not expect",
    "gemma3n-text": "the case's embeddings for each layer are narrower than the loader expects",
    "gemma4-assistant": "a draft, which needs its main model",
    "gemma4-text": "the case's embedding has more rows than its vocabulary has tokens",
    "minicpm3": "the case's keys and values have other widths than the loader expects",
    "modernbert": "the reference's file lacks the epsilon of the norms",
    "nemotronh": "the case's config gives its dense layers no width",
    "plamo2": "the server does not come to an end with the case's vocabulary",
    "t5": "the server does not run a decoder that needs an encoder",
}
TEXTS = [path for path in sorted(CORPUS.glob("*/*/expected/auto.json")) if path.parents[2].name in ("later", "more")]


def _is_encoder(path: Path) -> bool:
    keys = {entry["key"].partition(".")[2]: entry.get("value") for entry in read_manifest(path)["kv"]}
    return "pooling_type" in keys or keys.get("attention.causal") is False


@pytest.mark.parametrize("path", [path for path in TEXTS if path.parents[1].name not in NOT_RUN], ids=short)
def test_llama_cpp_runs_the_text_model_of_a_case(
    path: Path, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, arguments = cases.arguments(path, tmp_path)
    out = tmp_path / "out.gguf"
    monkeypatch.chdir(case)
    assert main(["convert", "--quiet", *arguments, "-o", str(out), "-t", "auto"]) == 0
    if _is_encoder(path):
        (width,) = embedded(out)
        assert int(width) > 0
    else:
        assert generated(out) == ["6"]


def test_no_case_is_excused_that_is_not_there() -> None:
    assert not TEXTS or NOT_RUN.keys() <= {path.parents[1].name for path in TEXTS}
