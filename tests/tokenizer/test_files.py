from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import TokenizerFiles, bpe, read_vocabulary


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    files = TokenizerFiles(LocalFolder(tmp_path))
    assert files.tokenizer is files.tokenizer_bytes is files.sentencepiece is files.merges is None
    assert files.additional_chat_templates == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b'{"a": ', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid UTF-8"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"[1]", "object is expected"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
    ],
)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_broken_json_file_is_named(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        read_vocabulary(LocalFolder(tmp_path), {}, bpe)
    assert caught.value.file == tmp_path / name


def test_text_files_have_the_line_ends_of_text_mode(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"a\r\nb\rc\n")
    assert TokenizerFiles(LocalFolder(tmp_path)).chat_template_jinja == "a\nb\nc\n"


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_bytes(b"a b\n\xc3\x28 d\n")
    with pytest.raises(InputError, match="byte 4"):
        _ = TokenizerFiles(LocalFolder(tmp_path)).merges


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.model").open("wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(InputError, match="larger than 16 MiB, the limit for such files"):
        _ = TokenizerFiles(LocalFolder(tmp_path)).sentencepiece


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no tokenizer.*tokenizer\.json, tokenizer\.model, tekken\.json, or vocab\.json"
    ):
        read_vocabulary(LocalFolder(tmp_path), {"vocab_size": 8})
