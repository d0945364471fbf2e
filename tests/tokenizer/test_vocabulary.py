from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata, u32
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import (
    Reader,
    TokenizerFiles,
    TokenizerSource,
    add_space_prefix,
    configured_space_prefix,
    first_of,
    has_tokenizer_class,
    has_vocab_size,
    in_order,
    when,
)
from gguf_forge.tokenizer.token_types import added_token, looks_like_control


def gives(**keys: int) -> Reader:
    return lambda _: {key: u32(value) for key, value in keys.items()}


def nothing(_: TokenizerSource) -> Metadata | None:
    return None


@pytest.fixture
def source(tmp_path: Path) -> TokenizerSource:
    return TokenizerSource(TokenizerFiles(LocalFolder(tmp_path)), {"vocab_size": 8})


def test_the_first_that_has_its_files_is_taken(source: TokenizerSource) -> None:
    assert first_of(nothing, gives(a=1), gives(b=2))(source) == {"a": u32(1)}
    assert first_of(nothing)(source) is None


def test_a_key_given_again_keeps_its_place(source: TokenizerSource) -> None:
    found = in_order(gives(a=1, b=2), gives(c=3, a=4))(source)
    assert found is not None
    assert list(found.items()) == [("a", u32(4)), ("b", u32(2)), ("c", u32(3))]
    assert in_order(gives(a=1), nothing)(source) is None


def test_conditions(source: TokenizerSource) -> None:
    assert when(has_vocab_size(8), gives(a=1))(source) == {"a": u32(1)}
    assert when(has_vocab_size(9), gives(a=1))(source) == {}
    assert when(has_tokenizer_class("X"), gives(a=1))(source) == {}
    (source.files.folder.path / "tokenizer_config.json").write_text('{"tokenizer_class": "X"}')
    named = TokenizerSource(TokenizerFiles(source.files.folder), {})
    assert when(has_tokenizer_class("X"), gives(a=1))(named) == {"a": u32(1)}


@pytest.mark.parametrize(("said", "wanted"), [("{}", None), ("true", True), ("false", False)])
def test_the_configured_space_prefix(source: TokenizerSource, said: str, wanted: bool | None) -> None:
    text = "{}" if said == "{}" else f'{{"add_prefix_space": {said}}}'
    (source.files.folder.path / "tokenizer_config.json").write_text(text)
    found = configured_space_prefix(source)
    assert found == ({} if wanted is None else add_space_prefix(wanted)(source))


def test_a_space_prefix_that_is_no_flag(source: TokenizerSource) -> None:
    (source.files.folder.path / "tokenizer_config.json").write_text('{"add_prefix_space": "yes"}')
    with pytest.raises(InputError, match="add_prefix_space must be true or false"):
        configured_space_prefix(source)


@pytest.mark.parametrize(
    ("text", "control"),
    [
        ("<pad>", True), ("[@BOS@]", True), ("<|x|>", True), ("<\uff5cx\uff5c>", True), ("<unused7>", True),
        ("<b>", False), ("|x|", False), ("<|x", False), ("", False),
    ],
)  # fmt: skip
def test_control_tokens_by_their_text(text: str, control: bool) -> None:
    assert looks_like_control(text) is control


def test_spaces_are_written_as_such_in_user_defined_tokens_only() -> None:
    assert added_token("▁a", special=False) == (" a", 4)
    assert added_token("▁a", special=True) == ("▁a", 3)
