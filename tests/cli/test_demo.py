"""`demo`, and the model that it makes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from checkpoints import TINY
from command_line import Forge, listing
from safetensors import safe_open

from gguf_forge.cli.demo_checkpoint import make_model


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_converts_its_own_model_and_says_what_is_next(forge: Forge, temporary: Path) -> None:
    ran = forge("demo")
    assert ran.code == 0
    [made] = temporary.glob("*")
    assert listing(Path()) == []
    [file] = listing(made)
    assert file == "Forge-Demo-17M-Q4_K_M.gguf"
    for step in (f"llama-cli -m {made / file}", "ollama create", "gguf-forge convert MODEL_FOLDER"):
        assert step in ran.out


def test_keeps_the_checkpoint(forge: Forge, temporary: Path) -> None:
    ran = forge("demo", "--keep", "kept", "-o", ".", "-t", "Q8_0", "--json")
    assert ran.code == 0
    assert ran.file["path"] == "Forge-Demo-17M-Q8_0.gguf"
    assert listing(Path("kept/Forge-Demo")) == [
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "tokenizer_config.json",
    ]
    assert listing(temporary) == []
    assert forge("convert", "kept/Forge-Demo").code == 0


def test_refuses_to_replace_a_file(forge: Forge, temporary: Path) -> None:
    assert forge("demo", "-o", "x.gguf", "-q").code == 0
    ran = forge("demo", "-o", "x.gguf")
    assert ran.code == 8


def test_a_failure_leaves_no_folder(forge: Forge, temporary: Path) -> None:
    assert forge("demo", "-t", "q9").code == 2
    assert listing(temporary) == []


def test_a_folder_that_cannot_be_made(forge: Forge) -> None:
    Path("file").write_text("")
    ran = forge("demo", "--keep", "file")
    assert ran.code == 5
    assert "the model cannot be written" in ran.err


def test_the_model_is_the_same_everywhere(tmp_path: Path) -> None:
    make_model(tmp_path / "a", TINY)
    digest = hashlib.sha256()
    for path in sorted((tmp_path / "a").iterdir()):
        digest.update(path.read_bytes())
    assert digest.hexdigest() == "ec7b756745f2984b0a52b116e7dfbeb55e99cae70d50ad532f761a5824595b27"


def test_the_weights_look_normal(tmp_path: Path) -> None:
    make_model(tmp_path, TINY, dtype="F32")
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        values = file.get_tensor("model.layers.0.mlp.up_proj.weight")
        assert file.get_tensor("model.norm.weight").tolist() == [1.0] * 256
    assert values.shape == (256, 256)
    assert abs(values.std() - 0.02) < 1e-3
    assert abs(values.mean()) < 1e-3
    assert abs(np.mean(np.abs(values) < 0.02) - 0.68) < 0.02


def test_sentencepiece_reads_the_tokenizer(tmp_path: Path) -> None:
    make_model(tmp_path, TINY)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert tokenizer.vocab_size() == json.loads((tmp_path / "config.json").read_text())["vocab_size"]
    assert tokenizer.encode("the number of words é", out_type=str)[:4] == ["▁the", "▁number", "▁of", "▁word"]
    assert tokenizer.decode(tokenizer.encode("Hello, world: é!")) == "Hello, world: é!"
    assert (tokenizer.unk_id(), tokenizer.bos_id(), tokenizer.eos_id()) == (0, 1, 2)


def test_llama_cpp_generates_from_the_file(forge: Forge, temporary: Path) -> None:
    client = pytest.importorskip("xllamacpp")
    forge("demo", "-o", "demo.gguf", "-q")
    parameters = client.CommonParams()
    parameters.model.path = "demo.gguf"
    parameters.n_ctx = 64
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    answer = client.Server(parameters).handle_completions({"prompt": "Once upon a time", "n_predict": 4})
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("types", ["Q4_K_M", "Q8_0", "Q4_K_M,Q8_0"])
def test_the_closing_advice_can_be_followed(forge: Forge, types: str) -> None:
    out = forge("demo", "--keep", ".", "-o", ".", "-t", types).out
    (line,) = (line.strip() for line in out.splitlines() if line.strip().startswith("gguf-forge convert"))
    ran = forge(*line.split()[1:])
    assert ran.code == 0, ran.err


def test_it_says_how_to_remove_the_file_that_nobody_placed(forge: Forge, temporary: Path) -> None:
    (kept,) = (line.split() for line in forge("demo").out.splitlines() if line.strip().startswith("rm "))
    assert kept == ["rm", "-r", str(next(temporary.iterdir()))]
    assert "rm -r" not in forge("demo", "-o", "here.gguf").out


def test_only_the_folder_that_is_kept_is_named(forge: Forge, temporary: Path) -> None:
    ran = forge("demo")
    (kept,) = temporary.iterdir()
    assert str(kept) in ran.out
    assert str(temporary) not in (ran.out + ran.err).replace(str(kept), "")
