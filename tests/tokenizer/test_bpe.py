from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import copy_folder, edit

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import (
    Reader,
    TokenizerFiles,
    TokenizerSource,
    bpe,
    bpe_as_marked,
    bpe_with,
    gemma4,
    glm,
    llama_hf,
    read_vocabulary,
    real_vocabulary_size,
)

TOKENS, TYPES, MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges"))


def read(folder: Path, size: Any = 512, reader: Reader = bpe) -> dict[str, Any]:
    found = read_vocabulary(LocalFolder(folder), {"vocab_size": size}, reader, pre_tokenizer="llama-bpe")
    return {key: value.data for key, value in found.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_folder("llama3-bpe", tmp_path / "hf")


def added(id: int, content: str, **flags: bool) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"id": id, "content": content, **plain, **flags}


def append(folder: Path, *tokens: dict[str, Any]) -> int:
    """Adds tokens to tokenizer.json; gives the first free id."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    free = len(vocabulary["model"]["vocab"]) + len(vocabulary["added_tokens"])
    for offset, token in enumerate(tokens):
        token["id"] += free + offset
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer["added_tokens"].extend(tokens))
    return free


def test_holes_are_padding(folder: Path) -> None:
    found = read(folder, 600)
    assert (found[TOKENS][599], found[TYPES][599]) == ("[PAD599]", 5)


def test_a_vocabulary_larger_than_the_model(folder: Path) -> None:
    with pytest.raises(InputError, match=r"id 300 \('is'\), and the model's vocab_size is 300; .*resize"):
        read(folder, 300)


def test_texts_and_types_of_added_tokens(folder: Path) -> None:
    texts = ["<|x|>", "a▁b", "[S]", "nul\0", "n" * 70_000, "<0x-1>", "isn 't ."]
    free = append(folder, *(added(0, text, special=text == "[S]") for text in texts))
    found = read(folder, 600)
    assert found[TOKENS][free : free + len(texts)] == (
        "<|x|>", "a b", "[S]", "nul\0", "n" * 70_000, "<0x-1>", "isn 't .",
    )  # fmt: skip
    assert found[TYPES][free : free + len(texts)] == (3, 4, 3, 4, 4, 4, 4)


def test_added_tokens_are_cleaned_up_where_the_tokenizer_does_so(folder: Path) -> None:
    free = append(folder, added(0, "isn 't ."), added(0, "so , so", normalized=True))
    edit(folder / "tokenizer_config.json", lambda config: config.update(clean_up_tokenization_spaces=True))
    assert read(folder, 600)[TOKENS][free : free + 2] == ("isn 't.", "so , so")


def test_ids_of_added_tokens_are_those_that_the_tokenizers_library_gives(folder: Path) -> None:
    free = append(folder, added(40, "[hole]"))
    found = read(folder, 600)
    assert found[TOKENS][free] == "[hole]"
    assert found[TOKENS][free + 40] == f"[PAD{free + 40}]"


def test_a_vocabulary_without_tokens(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    edit(folder / "tokenizer.json", lambda value: value["model"].update(vocab={}, merges=[]))
    edit(folder / "tokenizer.json", lambda value: value.update(added_tokens=[], post_processor=None))
    edit(folder / "config.json", lambda config: config.update(model_type="other"))
    (folder / "special_tokens_map.json").unlink()
    with pytest.raises(InputError, match="has no tokens"):
        read(folder)


def test_two_tokens_with_one_id(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer["model"]["vocab"].update({"twice": 7}))
    with pytest.raises(InputError, match=r"same id 7"):
        read(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: tokenizer.pop("model"),
        lambda tokenizer: tokenizer.update(model=[]),
        lambda tokenizer: tokenizer["model"].update(type="Magic"),
        lambda tokenizer: tokenizer["model"].update(vocab=[]),
        lambda tokenizer: tokenizer["model"]["vocab"].update(bad=-1),
        lambda tokenizer: tokenizer["model"]["vocab"].update(bad="1"),
        lambda tokenizer: tokenizer["model"]["vocab"].update(bad=(1 << 32) - 1),
        lambda tokenizer: tokenizer["model"]["vocab"].update({"\ud800": 511}),
        lambda tokenizer: tokenizer["model"].update(merges=[["no", "such tokens"]]),
        lambda tokenizer: tokenizer["model"].update(merges={"a": 1}),
        lambda tokenizer: tokenizer["model"].update(merges=[1]),
        lambda tokenizer: tokenizer["model"]["merges"].append(["a", "b", "c"]),
        lambda tokenizer: tokenizer.update(added_tokens={}),
        lambda tokenizer: tokenizer.update(added_tokens=[{"id": 1}]),
        lambda tokenizer: tokenizer.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}}),
        lambda tokenizer: tokenizer.update(normalizer=7),
        lambda tokenizer: tokenizer.update(normalizer={"type": "Sequence", "normalizers": 7}),
        lambda tokenizer: tokenizer.update(post_processor=["x"]),
        lambda tokenizer: tokenizer.update(post_processor={"type": "TemplateProcessing", "single": 3}),
        lambda tokenizer: tokenizer.update(decoder="x"),
    ],
)
def test_a_broken_tokenizer_json(folder: Path, change: Callable[[Any], object]) -> None:
    edit(folder / "tokenizer.json", change)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bos_token", 5),
        ("bos_token", {"content": 5}),
        ("bos_token", {"content": "a", "special": 1}),
        ("bos_token", "\udfff"),
        ("additional_special_tokens", "abc"),
        ("additional_special_tokens", [5]),
        ("added_tokens_decoder", {"7": 5}),
        ("added_tokens_decoder", {"seven": {"content": "a"}}),
        ("extra_special_tokens", 5),
        ("chat_template", [5]),
        ("chat_template", [{"name": "a", "template": 5}]),
        ("chat_template", [{"name": 5, "template": "x"}]),
        ("chat_template", "\ud800"),
    ],
)
def test_wrong_types_in_tokenizer_config(folder: Path, name: str, value: object) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update({name: value}))
    with pytest.raises(InputError):
        read(folder)


def test_merges_as_pairs_and_as_texts_are_the_same(folder: Path) -> None:
    wanted = read(folder)[MERGES]
    edit(
        folder / "tokenizer.json",
        lambda tokenizer: tokenizer["model"].update(
            merges=[merge.split(" ") for merge in tokenizer["model"]["merges"]]
        ),
    )
    assert read(folder)[MERGES] == wanted


def test_spaces_in_pairs_are_written_as_byte_level_bpe_does(folder: Path) -> None:
    def change(tokenizer: Any) -> None:
        tokenizer["model"]["vocab"].update({" ": 600, " e": 601})
        tokenizer["model"]["merges"] = [["Ġ", "t"], [" ", "e"]]

    edit(folder / "tokenizer.json", change)
    assert read(folder, 700)[MERGES] == ("Ġ t", "Ġ e")


def slow_folder(tmp_path: Path, family: str = "qwen2") -> Path:
    return copy_folder(family, tmp_path / "slow", without=("tokenizer.json",))


def test_a_folder_without_tokenizer_json(tmp_path: Path) -> None:
    whole = read(copy_folder("qwen2", tmp_path / "whole"))
    slow = read(slow_folder(tmp_path))
    assert {key: slow[key] for key in (TOKENS, TYPES, MERGES)} == {key: whole[key] for key in (TOKENS, TYPES, MERGES)}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("merges.txt", "#version: 0.2\na b c\nd e\n", "not a pair of tokens: 'a b c'"),
        ("vocab.json", '{"a": "x"}', "must be a token id"),
        ("vocab.json", '{"\\ud800": 1}', "lone surrogate"),
        ("merges.txt", "#version: 0.2\nno such\n", "cannot be used"),
    ],
)
def test_a_broken_slow_folder(tmp_path: Path, name: str, content: str, told: str) -> None:
    folder = slow_folder(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=told):
        read(folder)


def test_real_size_counts_both_lists(folder: Path) -> None:
    lists = json.loads((folder / "tokenizer.json").read_text())
    wanted = len(lists["model"]["vocab"]) + len(lists["added_tokens"])
    assert real_vocabulary_size(LocalFolder(folder), {"vocab_size": 9999}) == wanted


def test_llama_hf_refuses_a_hole_in_the_vocabulary(tmp_path: Path) -> None:
    folder = copy_folder("llama-hfvocab", tmp_path / "hf")

    def change(tokenizer: Any) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary[max(vocabulary, key=vocabulary.__getitem__)] = 700

    edit(folder / "tokenizer.json", change)
    with pytest.raises(InputError, match="none with id 479"):
        read_vocabulary(LocalFolder(folder), {}, llama_hf)


def test_a_byte_level_tokenizer_is_not_taken_for_a_sentencepiece_one(folder: Path) -> None:
    assert llama_hf(TokenizerSource(TokenizerFiles(LocalFolder(folder)), {})) is None


def test_added_tokens_as_marked(folder: Path) -> None:
    free = append(folder, added(0, "<|x|>"), added(0, "a▁b"), added(0, "[S]", special=True))
    found = read(folder, 600, bpe_as_marked)
    assert found[TOKENS][free : free + 3] == ("<|x|>", "a▁b", "[S]")
    assert found[TYPES][free : free + 3] == (4, 4, 3)


def test_special_tokens_by_the_text_of_an_added_token(folder: Path) -> None:
    free = append(folder, added(0, "<|user|>"), added(0, "<|endoftext|>"))
    reader = bpe_with({"eot": "<|user|>", "bos": "<|endoftext|>"}, {"mask": 7})
    found = read(folder, 600, reader)
    wanted = read(folder, 600)["tokenizer.ggml.bos_token_id"]
    assert found["tokenizer.ggml.bos_token_id"] == wanted != free + 1
    assert (found["tokenizer.ggml.eot_token_id"], found["tokenizer.ggml.mask_token_id"]) == (free, 7)
    with pytest.raises(InputError, match=r"no added token '\[gMASK\]', which models of this family need"):
        read(folder, 600, glm)


def test_gemma4_shows_the_marks_of_tool_calls(tmp_path: Path) -> None:
    folder = copy_folder("llama-hfvocab", tmp_path / "hf")
    append(folder, added(0, "<|tool_call>", special=True), added(0, "<|x|>", special=True))
    found = {key: value.data for key, value in read_vocabulary(LocalFolder(folder), {}, gemma4).items()}
    assert list(found)[:5] == ["tokenizer.ggml.model", TOKENS, "tokenizer.ggml.scores", TYPES, MERGES]
    assert found[TOKENS][-2:] == (b"<|tool_call>", b"<|x|>")
    assert found[TYPES][-2] == 4
    assert found["tokenizer.ggml.add_bos_token"] is True
