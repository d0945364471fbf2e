"""The tokenizer files of a Hugging Face folder: read once, when asked, and never trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gguf_forge.errors import InputError
from gguf_forge.storage.json_file import IMPOSTOR_BYTES, MAX_BYTES, read_json_object, refuse_impostor
from gguf_forge.tokenizer.checks import Place


def read_bytes(path: Path) -> bytes | None:
    """The content of a file, None where there is none. Raises InputError when it cannot be the file meant."""
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"the file is larger than {MAX_BYTES >> 20} MiB", file=path)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror or error}", file=path) from error
    refuse_impostor(data[:IMPOSTOR_BYTES], path)
    return data


def read_text(path: Path) -> str | None:
    """A UTF-8 text with `\\n` line ends (as Python's text mode gives it), None where there is no file."""
    data = read_bytes(path)
    if data is None:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not valid UTF-8 at byte {error.start}", file=path, hint="download it again") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer files of one folder. Each attribute is a parsed file, or None where there is none.

    Example:
        >>> TokenizerFiles(Path("Qwen3-0.6B")).tokenizer_config["tokenizer_class"]
        'Qwen2Tokenizer'
    """

    folder: Path

    def place(self, name: str) -> Place:
        return Place(self.folder / name)

    def _object(self, name: str) -> Mapping[str, Any] | None:
        path = self.folder / name
        return read_json_object(path) if path.is_file() else None

    @cached_property
    def tokenizer_bytes(self) -> bytes | None:
        """tokenizer.json as it is, for the `tokenizers` library."""
        return read_bytes(self.folder / "tokenizer.json")

    @cached_property
    def tokenizer(self) -> Mapping[str, Any] | None:
        return self._object("tokenizer.json")

    @cached_property
    def tokenizer_config(self) -> Mapping[str, Any] | None:
        return self._object("tokenizer_config.json")

    @cached_property
    def special_tokens_map(self) -> Mapping[str, Any] | None:
        return self._object("special_tokens_map.json")

    @cached_property
    def added_tokens(self) -> Mapping[str, Any] | None:
        return self._object("added_tokens.json")

    @cached_property
    def config(self) -> Mapping[str, Any] | None:
        """config.json as it stands, without any default."""
        return self._object("config.json")

    @cached_property
    def vocab(self) -> Mapping[str, Any] | None:
        return self._object("vocab.json")

    @cached_property
    def merges(self) -> str | None:
        return read_text(self.folder / "merges.txt")

    @cached_property
    def wordpieces(self) -> str | None:
        """vocab.txt: a token a line."""
        return read_text(self.folder / "vocab.txt")

    @cached_property
    def sentencepiece(self) -> bytes | None:
        """tokenizer.model as it is."""
        return read_bytes(self.folder / "tokenizer.model")

    def content(self, name: str) -> bytes | None:
        """A file that few vocabularies have, as it is."""
        return read_bytes(self.folder / name)

    def text(self, name: str) -> str | None:
        """A text file that few vocabularies have, with `\\n` line ends."""
        return read_text(self.folder / name)

    def object(self, name: str) -> Mapping[str, Any] | None:
        """A JSON file that few vocabularies have."""
        return self._object(name)

    @cached_property
    def chat_template_jinja(self) -> str | None:
        return read_text(self.folder / "chat_template.jinja")

    @cached_property
    def chat_template_json(self) -> Mapping[str, Any] | None:
        return self._object("chat_template.json")

    @cached_property
    def additional_chat_templates(self) -> dict[str, str]:
        """Name -> template of the folder additional_chat_templates, by name."""
        found = sorted((self.folder / "additional_chat_templates").glob("*.jinja"))
        return {path.stem: text for path in found if (text := read_text(path)) is not None}
