from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from synthetic import small_files
from tokenizer_folders import copy_folder

from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import bpe, known_names, read_vocabulary
from gguf_forge.tokenizer.pre_tokenizers import PROBE, name_of, probe_hash, similar


def test_the_probe_is_the_text_that_hashes_were_made_with() -> None:
    assert sha256(PROBE.encode()).hexdigest() == "a36179c1e2b1cfcfbfad1dc779addad2ffc778201e4cf0d538bddeafa2c526da"


def test_a_known_hash_gives_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gguf_forge.tokenizer.pre_tokenizers.probe_hash",
        lambda ids: "0ef9807a4087ebef797fc749390439009c3b9eda9ad1a097abbe738f486c01e5",
    )
    assert name_of([1], None, Path("hf")) == "llama-bpe"


def test_the_hash_is_that_of_the_list_as_python_prints_it() -> None:
    assert probe_hash((1, 22, 333)) == sha256(b"[1, 22, 333]").hexdigest()


def test_an_unknown_hash_is_shown_with_a_way_out(tmp_path: Path) -> None:
    folder = copy_folder("qwen2", tmp_path / "hf")
    with pytest.raises(UnsupportedError) as caught:
        read_vocabulary(LocalFolder(folder), {"vocab_size": 512}, bpe)
    told = str(caught.value)
    assert re.search(r"\(hash [0-9a-f]{64}\)", told)
    assert told.endswith('try pre_tokenizer="qwen2"')


def test_a_vocabulary_whose_rules_resemble_none(tmp_path: Path) -> None:
    folder = copy_folder("qwen2", tmp_path / "hf")
    value = json.loads((folder / "tokenizer.json").read_text())
    value["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": "x+"}
    (folder / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(UnsupportedError, match='name it with pre_tokenizer="NAME"') as caught:
        read_vocabulary(LocalFolder(folder), {"vocab_size": 512}, bpe)
    assert all(name in str(caught.value) for name in known_names())


@pytest.mark.parametrize(
    ("family", "names"),
    [("llama3-bpe", ("llama-bpe",)), ("qwen2", ("qwen2",)), ("phi", ("gpt-2",)), ("gemma", ())],
)
def test_likely_names_by_splitting_rules(family: str, names: tuple[str, ...]) -> None:
    tokenizer: dict[str, Any] = json.loads(small_files(family)[Path("tokenizer.json")].read_text())
    assert similar(tokenizer) == names


def test_merges_tell_llama_3_from_those_with_the_same_pattern() -> None:
    tokenizer = json.loads(small_files("llama3-bpe")[Path("tokenizer.json")].read_text())
    tokenizer["model"]["ignore_merges"] = False
    assert similar(tokenizer) == ("smaug-bpe", "dbrx")


@pytest.mark.parametrize(
    "pre_tokenizer", [None, 5, "x", [], {"type": "Sequence", "pretokenizers": 5}, {"type": "Split"}]
)
def test_no_rules_resemble_none(pre_tokenizer: object) -> None:
    assert similar({"pre_tokenizer": pre_tokenizer, "model": 5}) == ()


@pytest.mark.parametrize("name", ["", "llama3-bep", "qwen", "Llama-BPE"])
def test_a_name_that_llama_cpp_does_not_know(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="knows no pre-tokenizer"):
        read_vocabulary(LocalFolder(tmp_path), {}, pre_tokenizer=name)


def test_a_near_miss_is_corrected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean llama-bpe"):
        read_vocabulary(LocalFolder(tmp_path), {}, pre_tokenizer="llama-bep")


@pytest.mark.parametrize("name", ["foo", "kormoo2", "qwen3", "mistral"])
def test_the_name_of_another_model_is_no_advice(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="; known: ") as caught:
        read_vocabulary(LocalFolder(tmp_path), {}, pre_tokenizer=name)
    assert "did you mean" not in str(caught.value)
