"""The language model of Qwen3-TTS against llama.cpp's tools, and what is refused.

The expected digests in tests/qwen3_tts.json were made by reference/make_qwen3_tts.py; none comes from this project.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from quantized import digest
from qwen3_tts import CONFIG, write_checkpoint

from gguf_forge import InputError, UnsupportedError, convert, plan, verify_gguf

PINNED = json.loads((Path(__file__).parents[1] / "qwen3_tts.json").read_text())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "hf")


def with_talker(checkpoint: Path, **changes: Any) -> Path:
    config = {**CONFIG, "talker_config": {**CONFIG["talker_config"], **changes}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    return checkpoint


@pytest.mark.parametrize("kind", PINNED)
def test_every_file_is_the_one_of_the_reference(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    (made,) = convert(checkpoint, tmp_path / "m.gguf", types=kind, pre_tokenizer="qwen2")
    assert digest(made.path.read_bytes()) == [PINNED[kind]["size"], PINNED[kind]["sha256"]]


def test_verify_takes_it_for_right(checkpoint: Path, tmp_path: Path) -> None:
    (made,) = convert(checkpoint, tmp_path / "m.gguf", types="Q8_0", pre_tokenizer="qwen2", threads=1)
    assert verify_gguf(made.path, checkpoint, pre_tokenizer="qwen2").ok


def test_codes_are_named_after_the_keys_that_have_their_numbers(checkpoint: Path) -> None:
    (file,) = plan(checkpoint, types="F32", pre_tokenizer="qwen2")
    tokens, types = (file.metadata[f"tokenizer.ggml.{name}"].data for name in ("tokens", "token_type"))
    assert (tokens[512], tokens[512 + 1030], tokens[512 + 1050]) == (
        "<|codec_0|>",
        "<|codec_language_chinese|>",
        "<|codec_eos_token|>",
    )
    assert set(types[512:]) == {3}


@pytest.mark.parametrize("changes", [{"codec_pad_id": 1056}, {"codec_pad_id": -1}, {"spk_id": {"a": "b"}}])
def test_codes_that_there_are_not(changes: dict[str, Any], checkpoint: Path) -> None:
    with pytest.raises(InputError, match="a token id"):
        plan(with_talker(checkpoint, **changes), types="F32", pre_tokenizer="qwen2")


def test_an_activation_that_is_not_known(checkpoint: Path) -> None:
    with pytest.raises(UnsupportedError, match="the text goes through 'swish7'"):
        plan(with_talker(checkpoint, hidden_act="swish7"), types="F32", pre_tokenizer="qwen2")


def test_a_config_without_a_talker(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps({**CONFIG, "talker_config": None}))
    with pytest.raises(InputError, match="has no talker_config"):
        plan(checkpoint, types="F32", pre_tokenizer="qwen2")
