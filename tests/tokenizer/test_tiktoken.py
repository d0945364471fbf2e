from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from tokenizers.pre_tokenizers import ByteLevel

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import (
    Reader,
    builtin,
    hunyuan,
    hunyuan_moe,
    kimi,
    kimi_k3,
    kimi_linear,
    qwen,
    read_vocabulary,
)
from gguf_forge.tokenizer.checks import Place
from gguf_forge.tokenizer.ranks import joined, merges_of, read_ranks, shown
from gguf_forge.tokenizer.token_types import TokenType

PLACE = Place("x.tiktoken")
TOKENS, TYPES, MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges"))
WORDS = [b"th", b"in", b"the", b"  ", b"    ", b"ing", b"thing", b"\xff\xfe"]


def ranks_of(words: Iterable[bytes] = WORDS) -> dict[bytes, int]:
    tokens = [*(bytes([byte]) for byte in range(256)), *words]
    return {token: rank for rank, token in enumerate(tokens)}


def file_of(ranks: dict[bytes, int]) -> bytes:
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items())


def read(folder: Path, name: str, reader: Reader, size: int = 600, **config: Any) -> dict[str, Any]:
    (folder / name).write_bytes(file_of(ranks_of()))
    return {k: v.data for k, v in read_vocabulary(LocalFolder(folder), {"vocab_size": size, **config}, reader).items()}


def test_bytes_are_shown_as_the_tokenizers_library_shows_them() -> None:
    assert sorted(shown(bytes([byte])) for byte in range(256)) == sorted(ByteLevel.alphabet())
    assert shown(b" \n~\xad") == "ĠĊ~Ń"


def test_merges_make_the_tokens_that_the_ranks_say() -> None:
    ranks = ranks_of()
    pairs = list(merges_of(ranks))
    assert (b"th", b"ing") in pairs and (b"  ", b"  ") in pairs
    vocab = {shown(token): rank for token, rank in ranks.items()}
    engine = Tokenizer(models.BPE(vocab, [(shown(left), shown(right)) for left, right in pairs]))
    engine.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    for token in (b"thing", b"the", b"    "):
        assert engine.encode(token.decode()).ids == [ranks[token]]


def test_the_merges_of_a_real_vocabulary_follow_from_its_ranks() -> None:
    found = read_vocabulary(LocalFolder(Path("none")), {}, builtin("gpt-neox"))
    bytes_of = {shown(bytes([byte])): byte for byte in range(256)}
    ranks = {
        bytes(bytes_of[character] for character in text): id
        for id, text in enumerate(found[TOKENS].data)
        if found[TYPES].data[id] == TokenType.NORMAL
    }
    assert [joined(pair) for pair in merges_of(ranks)] == list(found[MERGES].data)


def test_a_token_that_no_two_others_make_has_no_merge() -> None:
    assert list(merges_of(ranks_of([b"abc"]))) == []


@given(st.lists(st.binary(min_size=2, max_size=6), unique=True, max_size=20))
def test_a_merge_joins_two_tokens_of_lower_rank(words: list[bytes]) -> None:
    ranks = ranks_of(words)
    for left, right in merges_of(ranks):
        assert max(ranks[left], ranks[right]) < ranks[left + right]
        assert joined((left, right)) == f"{shown(left)} {shown(right)}"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"YQ==", "line 1 that is not"),
        (b"YQ== x", "line 1 that is not"),
        (b"YQ= 1", "line 1 that is not"),
        (b"\xff 1", "line 1 that is not"),
        (b"YQ== 1 2", "line 1 that is not"),
        (b"YQ== 1\nYQ== 2", "line 2 that is empty, there twice"),
        (b"YQ== -1", "no possible rank"),
        (b"YQ== 999999999999999999999", "no possible rank"),
        (b"YQ== 1\nYg== 1", "the same rank"),
        (base64.b64encode(bytes(1 << 20)) + b" 1", "far longer than any real ones"),
    ],
)
def test_broken_ranks(data: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_ranks(data, PLACE)


@given(st.binary(max_size=80))
def test_no_bytes_get_past_the_checks(data: bytes) -> None:
    try:
        ranks = read_ranks(data, PLACE)
    except InputError:
        return
    assert len(set(ranks.values())) == len(ranks)


def test_qwen(tmp_path: Path) -> None:
    found = read(tmp_path, "qwen.tiktoken", qwen)
    assert found[TOKENS][255:266] == (
        "ÿ", "th", "in", "the", "ĠĠ", "ĠĠĠĠ", "ing", "thing", "ÿþ", "<|endoftext|>", "<|im_start|>",
    )  # fmt: skip
    assert found[TOKENS][471] == "<|extra_204|>"
    assert found[TYPES] == (1,) * 264 + (3,) * 208 + (5,) * 128
    assert [found[f"tokenizer.ggml.{kind}_token_id"] for kind in ("bos", "eos", "unknown")] == [264] * 3
    assert found["tokenizer.ggml.pre"] == "qwen2"


def test_qwen_takes_the_ids_that_the_files_tell(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 5}))
    found = read(tmp_path, "qwen.tiktoken", qwen)
    assert (found["tokenizer.ggml.eos_token_id"], found["tokenizer.ggml.unknown_token_id"]) == (5, 264)
    assert "tokenizer.ggml.bos_token_id" not in found


@pytest.mark.parametrize(("reader", "bos"), [(hunyuan_moe, 127959), (hunyuan, 127958)])
def test_hunyuan_has_extra_tokens_up_to_its_size(tmp_path: Path, reader: Reader, bos: int) -> None:
    found = read(tmp_path, "hy.tiktoken", reader, hidden_size=4096)
    assert (found[TOKENS][264], found[TOKENS][268], found[TOKENS][599]) == ("<|endoftext|>", "<|pad|>", "<|extra_330|>")
    assert set(found[TYPES][264:]) == {3}
    assert found["tokenizer.ggml.bos_token_id"] == bos


def test_hunyuan_ends_a_turn_as_its_generation_config_says(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8]}))
    assert read(tmp_path, "hy.tiktoken", hunyuan)["tokenizer.ggml.eot_token_id"] == 7


def test_kimi_has_reserved_tokens(tmp_path: Path) -> None:
    settings = {"added_tokens_decoder": {"265": {"content": "[EOS]"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 300}))
    found = read(tmp_path, "tiktoken.model", kimi)
    assert found[TOKENS][264:267] == ("<|reserved_token_264|>", "[EOS]", "<|reserved_token_266|>")
    assert found[TYPES][263:265] + found[TYPES][519:521] == (1, 3, 3, 5)
    assert found["tokenizer.ggml.eos_token_id"] == 300
    assert read(tmp_path, "tiktoken.model", kimi_linear)["tokenizer.ggml.eos_token_id"] == 265
    k3 = read(tmp_path, "tiktoken.model", kimi_k3, eos_token_id=301)
    assert k3["tokenizer.ggml.eos_token_id"] == 301
    assert "<|end_of_msg|>" in k3["tokenizer.chat_template"]


def test_kimi_without_its_end(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"eos_token is '\[EOS\]', which is not a token"):
        read(tmp_path, "tiktoken.model", kimi_linear)


def test_a_vocabulary_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a token with id 519, and the model's vocab_size is 300"):
        read(tmp_path, "tiktoken.model", kimi, 300)


def test_a_model_without_vocab_size(tmp_path: Path) -> None:
    (tmp_path / "qwen.tiktoken").write_bytes(file_of(ranks_of()))
    with pytest.raises(InputError, match="has no vocab_size"):
        read_vocabulary(LocalFolder(tmp_path), {}, qwen)


def test_a_number_of_tokens_that_no_memory_holds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a vocabulary of 10,000,000 tokens would take about 3,814 MiB"):
        read(tmp_path, "qwen.tiktoken", qwen, 10_000_000)
