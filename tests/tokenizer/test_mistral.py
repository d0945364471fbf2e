from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece_models import trained
from tokenizer_folders import edit

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import has_tekken_alone, mistral, read_vocabulary
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.vocabulary import TokenizerSource

TOKENS, TYPES, MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges"))
TEMPLATE = "tokenizer.chat_template"


def tekken(version: str = "v7") -> dict[str, Any]:
    words = [*(bytes([byte]) for byte in range(256)), b"th", b"he", b"the", b" t", b"left out"]
    vocab = [{"rank": rank, "token_bytes": base64.b64encode(word).decode()} for rank, word in enumerate(words)]
    special = [{"rank": rank, "token_str": text} for rank, text in enumerate(("<unk>", "<s>", "</s>", "<pad>"))]
    config = {"default_vocab_size": 266, "default_num_special_tokens": 6, "version": version}
    return {"config": config, "vocab": vocab, "special_tokens": special}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tekken.json").write_text(json.dumps(tekken()))
    return tmp_path


def read(folder: Path, **options: bool) -> dict[str, Any]:
    return {k: v.data for k, v in read_vocabulary(LocalFolder(folder), {}, mistral("llama", **options)).items()}


def test_special_tokens_come_first_and_the_excess_is_left_out(folder: Path) -> None:
    found = read(folder)
    assert found[TOKENS][:7] == (b"<unk>", b"<s>", b"</s>", b"<pad>", b"<SPECIAL_4>", b"<SPECIAL_5>", "Ā".encode())
    assert found[TOKENS][262:] == (b"th", b"he", b"the", "Ġt".encode())
    assert found[TYPES] == (3,) * 6 + (1,) * 260
    assert found["llama.vocab_size"] == 266
    assert [found[f"tokenizer.ggml.{kind}_token_id"] for kind in ("bos", "eos", "unknown", "padding")] == [1, 2, 0, 3]


def test_every_way_to_make_a_token_is_a_merge(folder: Path) -> None:
    assert read(folder)[MERGES] == ("t h", "h e", "t he", "th e", "Ġ t")


def test_special_tokens_that_the_file_does_not_list(folder: Path) -> None:
    def change(value: Any) -> None:
        del value["special_tokens"]
        value["config"].update(default_vocab_size=290, default_num_special_tokens=30)

    edit(folder / "tekken.json", change)
    found = read(folder)
    assert (found[TOKENS][3], found[TOKENS][19], found[TOKENS][20]) == (b"[INST]", b"[TOOL_CONTENT]", b"<SPECIAL_20>")
    assert found["tokenizer.ggml.padding_token_id"] == 11


@pytest.mark.parametrize(
    ("version", "start"),
    [
        ("v3", "mistral-v3-tekken"),
        ("v7", "mistral-v7-tekken"),
        ("v11", '{%- set today = strftime_now("%Y-%m-%d") %}'),
        ("v13", "{#"),
    ],
)
def test_templates_by_version(folder: Path, version: str, start: str) -> None:
    (folder / "tekken.json").write_text(json.dumps(tekken(version)))
    assert read(folder)[TEMPLATE].startswith(start)


def test_the_folders_own_template_goes_first_in_mistrals_format(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("own")
    assert read(folder)[TEMPLATE] == "own"
    assert read(folder, native=False)[TEMPLATE] == "own"
    (folder / "chat_template.jinja").unlink()
    assert read(folder, native=False)[TEMPLATE] == "mistral-v7-tekken"
    assert TEMPLATE not in read(folder, community_template=False)


def test_a_version_without_a_template(folder: Path) -> None:
    (folder / "tekken.json").write_text(json.dumps(tekken("v99")))
    with pytest.raises(UnsupportedError, match="no chat template is known for tekken tokenizers of version v99"):
        read(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(config=[]),
        lambda value: value["config"].update(default_vocab_size=6),
        lambda value: value["config"].update(default_vocab_size=-1),
        lambda value: value["config"].update(default_vocab_size=1 << 30),
        lambda value: value["config"].update(default_vocab_size=400),
        lambda value: value["config"].update(default_num_special_tokens=3),
        lambda value: value["config"].update(version=7),
        lambda value: value.update(special_tokens=[]),
        lambda value: value.update(special_tokens=[5]),
        lambda value: value["special_tokens"].append({"rank": 3, "token_str": "x"}),
        lambda value: value["special_tokens"].pop(0),
        lambda value: value.update(vocab={}),
        lambda value: value["vocab"].insert(0, value["vocab"].pop()),
        lambda value: value["vocab"][5].update(token_bytes="?"),
        lambda value: value["vocab"][257].update(token_bytes="dGg="),
        lambda value: value["vocab"][257].update(token_bytes=""),
        lambda value: value["vocab"][257].update(token_bytes=base64.b64encode(b"abc").decode()),
        lambda value: value["vocab"][257].update(token_bytes=base64.b64encode(bytes(1 << 16)).decode()),
        lambda value: value["vocab"][257].update(rank=True),
    ],
)
def test_a_broken_tekken_json(folder: Path, change: Callable[[Any], object]) -> None:
    edit(folder / "tekken.json", change)
    with pytest.raises(InputError, match=r"tekken\.json"):
        read(folder)


@pytest.mark.parametrize(
    ("names", "template"),
    [
        (["tokenizer.model"], "mistral-v1"),
        (["tokenizer.model.v3"], "mistral-v3"),
        (["tokenizer.model", "tokenizer.model.v7", "tokenizer.model.v3"], "mistral-v7"),
        (["tokenizer.model.v7m1"], "mistral-v7"),
    ],
)
def test_the_version_of_a_sentencepiece_model_is_its_suffix(tmp_path: Path, names: list[str], template: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(trained("bpe"))
    found = read(tmp_path)
    assert found[TEMPLATE] == template
    assert found["tokenizer.ggml.model"] == "llama" and MERGES not in found
    # Without padding, the end pads.
    assert [found[f"tokenizer.ggml.{kind}_token_id"] for kind in ("bos", "eos", "unknown", "padding")] == [1, 2, 0, 2]


def test_a_sentencepiece_model_with_padding_and_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained("bpe", pad_id=3))
    assert read(tmp_path)["tokenizer.ggml.padding_token_id"] == 3
    (tmp_path / "tokenizer.model").write_bytes(trained("bpe", eos_id=-1))
    with pytest.raises(InputError, match="no control piece '</s>'"):
        read(tmp_path)


def test_a_folder_with_tekken_alone(folder: Path) -> None:
    assert has_tekken_alone(TokenizerSource(TokenizerFiles(LocalFolder(folder)), {}))
    (folder / "tokenizer.json").write_text("{}")
    assert not has_tekken_alone(TokenizerSource(TokenizerFiles(LocalFolder(folder)), {}))


def test_special_tokens_that_no_memory_holds(folder: Path) -> None:
    def change(tekken: dict[str, Any]) -> None:
        tekken["config"] |= {"default_vocab_size": 10_000_260, "default_num_special_tokens": 10_000_000}

    edit(folder / "tekken.json", change)
    with pytest.raises(InputError, match=r"a vocabulary of 10,000,260 tokens would take about"):
        read(folder)
