"""How transformers settles what the files of a folder say; each fact was seen in transformers 4.57.6."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import copy_folder, edit
from tokenizers import Tokenizer

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import TokenizerFiles
from gguf_forge.tokenizer.auto_tokenizer import AutoTokenizer, load_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A vocabulary of 488 tokens and 12 added ones, 488 to 499."""
    return copy_folder("qwen2", tmp_path / "hf")


def load(folder: Path, **changes: Any) -> AutoTokenizer:
    """The tokenizer, after changes to tokenizer_config.json; None takes a key out."""

    def change(config: dict[str, Any]) -> None:
        config.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del config[key]

    edit(folder / "tokenizer_config.json", change)
    texts = ("hi", " hi", "a b c d e f")
    tokenizer = load_tokenizer(TokenizerFiles(LocalFolder(folder)), texts, round_trips=True)
    assert tokenizer is not None
    return tokenizer


def plain(folder: Path, text: str) -> list[int]:
    """The ids of a text without special tokens, as the library gives them."""
    ids: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    return ids


def test_defaults_of_the_class_that_the_vocabulary_lacks_become_tokens(folder: Path) -> None:
    tokenizer = load(folder, tokenizer_class="LlamaTokenizer", bos_token=None, unk_token=None)
    assert tokenizer.vocabulary()["<s>"] == 500
    assert tokenizer.vocabulary()["<unk>"] == 501
    assert tokenizer.added_tokens()[500].special


def test_the_generic_class_has_no_defaults(folder: Path) -> None:
    tokenizer = load(folder, tokenizer_class="PreTrainedTokenizerFast", bos_token=None, unk_token=None)
    assert len(tokenizer.vocabulary()) == 500


def test_a_class_that_is_not_known_is_taken_for_the_generic_one(folder: Path) -> None:
    tokenizer = load(folder, tokenizer_class="TokenizersBackend", bos_token=None, unk_token=None)
    assert len(tokenizer.vocabulary()) == 500


@pytest.mark.parametrize(("add_bos", "add_eos"), [(True, False), (False, True), (True, True), (False, False)])
def test_llamas_class_puts_its_own_tokens_around_a_text(folder: Path, add_bos: bool, add_eos: bool) -> None:
    tokenizer = load(
        folder,
        tokenizer_class="LlamaTokenizerFast",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        add_bos_token=add_bos,
        add_eos_token=add_eos,
    )
    assert tokenizer.encode("hi") == [489] * add_bos + plain(folder, "hi") + [490] * add_eos


def test_other_classes_leave_that_to_the_post_processor(folder: Path) -> None:
    tokenizer = load(folder, tokenizer_class="GPT2Tokenizer", bos_token="<|im_start|>", add_bos_token=True)
    assert tokenizer.encode("hi") == plain(folder, "hi")


def test_a_slow_gpt2_folder_puts_its_bos_before_a_text(tmp_path: Path) -> None:
    folder = copy_folder("qwen2", tmp_path / "slow", without=("tokenizer.json",))
    tokenizer = load(folder, tokenizer_class="GPT2Tokenizer", bos_token="<|im_start|>", add_bos_token=True)
    assert tokenizer.encode("hi")[0] == tokenizer.vocabulary()["<|im_start|>"]


def test_a_bos_that_is_wanted_and_missing(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(bos_token=None))
    with pytest.raises(InputError, match=r"no bos token.*correct bos_token or add_bos_token"):
        load(folder, tokenizer_class="LlamaTokenizer", add_bos_token=True)


def test_flags_of_tokenizer_config_outrank_those_of_tokenizer_json(folder: Path) -> None:
    decoder = {"497": {"content": "</tool_call>", "special": True, "normalized": True, "lstrip": True}}
    token = load(folder, added_tokens_decoder=decoder).added_tokens()[497]
    assert (token.content, token.special, token.normalized, token.lstrip) == ("</tool_call>", True, True, True)


def test_without_added_tokens_decoder_the_special_tokens_map_counts(folder: Path) -> None:
    special = {"content": "hello there", "lstrip": False, "rstrip": True, "normalized": False, "single_word": False}
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": special}))
    tokenizer = load(folder, added_tokens_decoder=None)
    assert tokenizer.vocabulary()["hello there"] == 500
    assert tokenizer.added_tokens()[500].rstrip
    assert "hello there" in tokenizer.special_tokens
    assert "hello there" not in load(copy_folder("qwen2", folder / "again")).vocabulary()


def test_additional_and_extra_special_tokens_are_added_in_order(folder: Path) -> None:
    tokenizer = load(
        folder,
        additional_special_tokens=["<new>", {"__type": "AddedToken", "content": "<newer>"}, "<|im_end|>"],
        extra_special_tokens={"image_token": "<image>"},
    )
    assert [tokenizer.vocabulary()[text] for text in ("<new>", "<newer>", "<image>")] == [500, 501, 502]
    assert tokenizer.special_tokens[-3:] == ("<new>", "<newer>", "<image>")


def test_the_padding_of_tokenizer_json_names_a_special_token(folder: Path) -> None:
    padding = {
        "strategy": {"Fixed": 600}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(padding=padding))
    tokenizer = load(folder, tokenizer_class="PreTrainedTokenizerFast", pad_token=None)
    assert tokenizer.vocabulary()["[PAD]"] == 500
    assert len(tokenizer.encode("hi")) < 10


def test_truncation_is_off(folder: Path) -> None:
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(truncation=truncation))
    assert len(load(folder).encode("a b c d e f")) > 2


@pytest.mark.parametrize(
    ("name", "flag", "adds"),
    [
        ("GPT2Tokenizer", None, False),
        ("GPT2Tokenizer", True, True),
        ("PreTrainedTokenizerFast", None, False),
        ("LlamaTokenizerFast", None, True),
    ],
)
def test_the_prefix_space_is_the_class_s(folder: Path, name: str, flag: bool | None, adds: bool) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(pre_tokenizer=byte_level))
    edit(folder / "tokenizer_config.json", lambda config: config.update(add_prefix_space=flag))
    tokenizer = load(folder, tokenizer_class=name, add_prefix_space=flag, add_bos_token=False)
    assert (tokenizer.encode("hi") == tokenizer.encode(" hi")) is adds


def test_a_token_that_loses_its_normalization_is_written_as_it_is(folder: Path) -> None:
    def change(tokenizer: Any) -> None:
        tokenizer["normalizer"] = {"type": "Prepend", "prepend": "▁"}
        for token in tokenizer["added_tokens"]:
            token["normalized"] = True

    edit(folder / "tokenizer.json", change)
    assert load(folder).round_trips()["<|im_end|>"] == "<|im_end|>"


def test_a_token_that_is_not_normalized_is_written_as_it_comes_back(folder: Path) -> None:
    def change(tokenizer: Any) -> None:
        tokenizer["decoder"] = {"type": "Replace", "pattern": {"String": "<|"}, "content": "<"}

    edit(folder / "tokenizer.json", change)
    assert load(folder).round_trips()["<|im_end|>"] == "<im_end|>"


def test_the_class_of_the_model_type_counts_where_none_is_named(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(model_type="llama"))
    tokenizer = load(folder, tokenizer_class=None, bos_token=None, unk_token=None)
    assert "<s>" in tokenizer.vocabulary()
