from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import edit
from tokenizers import BertWordPieceTokenizer

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import (
    Reader,
    either,
    has_model_type,
    has_pre_tokenizer,
    read_vocabulary,
    whitespace,
    wordpiece,
)
from gguf_forge.tokenizer.auto_tokenizer import load_tokenizer
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.pre_tokenizers import PROBE

TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (*SPECIAL, "a", "##b", "##", "e", "é", "3", "##3", "'", "told", "i", "'", "last")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BERT folder with vocab.txt alone; one text is there twice."""
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return tmp_path


def read(folder: Path, reader: Reader = wordpiece, **config: Any) -> dict[str, Any]:
    found = read_vocabulary(LocalFolder(folder), {"vocab_size": 20, **config}, reader, pre_tokenizer="bert-bge")
    return {key: value.data for key, value in found.items()}


def with_tokenizer_json(folder: Path, change: Callable[[Any], object] = lambda _: None) -> Path:
    BertWordPieceTokenizer(str(folder / "vocab.txt")).save(str(folder / "tokenizer.json"))
    edit(folder / "tokenizer.json", change)
    return folder


def test_the_start_of_a_word_is_marked_instead_of_what_continues_it(folder: Path) -> None:
    found = read(folder)
    assert found[TOKENS][:5] == SPECIAL
    assert found[TOKENS][5:9] == ("▁a", "b", "", "▁e")
    # The text that is there twice has the later id; the earlier one is a hole.
    assert (found[TOKENS][12], found[TOKENS][15], found[TOKENS][19]) == ("▁[PAD12]", "▁'", "▁[PAD19]")
    assert found[TYPES] == (3,) * 5 + (1,) * 7 + (5,) + (1,) * 4 + (5,) * 3


def test_the_count_of_token_types_goes_first(folder: Path) -> None:
    assert next(iter(read(folder).items())) == ("tokenizer.ggml.token_type_count", 1)
    assert read(folder, type_vocab_size=2)["tokenizer.ggml.token_type_count"] == 2


@pytest.mark.parametrize("lowercase", [True, False])
def test_vocab_txt_gives_the_ids_that_the_tokenizers_library_gives(folder: Path, lowercase: bool) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(do_lower_case=lowercase))
    tokenizer = load_tokenizer(TokenizerFiles(LocalFolder(folder)), (PROBE, "a A é"))
    assert tokenizer is not None
    wanted = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lowercase).encode(PROBE).ids
    assert tokenizer.encode(PROBE) == wanted


def test_the_settings_of_the_class_outrank_the_normalizer(folder: Path) -> None:
    with_tokenizer_json(folder)
    edit(folder / "tokenizer_config.json", lambda config: config.update(do_lower_case=False, strip_accents=False))
    tokenizer = load_tokenizer(TokenizerFiles(LocalFolder(folder)), (PROBE, "a A é"))
    assert tokenizer is not None
    assert tokenizer.encode("a A é") == [2, 5, 1, 9, 3]


@pytest.mark.parametrize("count", [-1, "2", True, 1 << 40, None])
def test_a_count_of_token_types_that_is_none(folder: Path, count: object) -> None:
    with pytest.raises(InputError, match="type_vocab_size"):
        read(folder, type_vocab_size=count)


def test_a_vocab_txt_that_is_no_text(folder: Path) -> None:
    (folder / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"vocab\.txt: not valid UTF-8"):
        read(folder)


def test_special_tokens_that_vocab_txt_lacks_are_added(folder: Path) -> None:
    (folder / "vocab.txt").write_text("a\n[SEP]")
    assert read(folder)[TOKENS][:6] == ("▁a", "[SEP]", "[UNK]", "[PAD]", "[CLS]", "[MASK]")


@pytest.mark.parametrize("value", [5, "yes", [], {}])
@pytest.mark.parametrize("name", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_a_setting_of_the_wrong_type(folder: Path, name: str, value: object) -> None:
    with_tokenizer_json(folder)
    edit(folder / "tokenizer_config.json", lambda config: config.update({name: value}))
    with pytest.raises(InputError):
        read(folder)


def test_conditions_on_tokenizer_json(folder: Path) -> None:
    with_tokenizer_json(folder)
    reader = either(has_model_type("WordPiece"), whitespace, wordpiece)
    found = read(folder, reader)
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.pre"]) == ("whitespace", "whitespace")
    assert found[TOKENS][5:7] == ("a", "##b")
    assert (
        read(folder, either(has_pre_tokenizer("Whitespace"), whitespace, wordpiece))["tokenizer.ggml.model"] == "bert"
    )
