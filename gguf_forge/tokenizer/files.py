"""The tokenizer files of a Hugging Face folder. Each is read once, when it is first needed, and never trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gguf_forge.storage.folder import Folder, decoded
from gguf_forge.storage.json_file import IMPOSTOR_BYTES, read_json_object, refuse_impostor
from gguf_forge.storage.memory import check_memory
from gguf_forge.tokenizer.checks import Place

_JINJA = ".jinja"
# What the objects of a vocabulary take for each line of a text, and for each byte of a SentencePiece model.
_COST_OF_LINE, _COST_OF_BYTE = 400, 40


def _read_bytes(folder: Folder, name: str) -> bytes | None:
    """The content of a file; None if it is missing. Raises InputError if it is clearly another kind of file."""
    if not folder.has(name):
        return None
    data = folder.read_small(name)
    refuse_impostor(data[:IMPOSTOR_BYTES], folder.path_of(name))
    return data


def _read_vocabulary(folder: Folder, name: str) -> bytes | None:
    """Like `_read_bytes`, for a file whose lines or pieces become objects."""
    data = _read_bytes(folder, name)
    if data is not None:
        need = max(_COST_OF_LINE * data.count(b"\n"), _COST_OF_BYTE * len(data))
        check_memory(need, "its vocabulary", folder.path_of(name))
    return data


def _read_text(folder: Folder, name: str) -> str | None:
    """A UTF-8 text with `\\n` line ends, as Python's text mode gives it; None if the file is missing."""
    data = _read_vocabulary(folder, name)
    return None if data is None else decoded(data, folder.path_of(name))


@dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer files of one folder. Each attribute is a parsed file, or None if the file is missing.

    `as_reference` says that they are read as llama.cpp's converter reads them, also where it is wrong.

    Example:
        >>> TokenizerFiles(LocalFolder(Path("Qwen3-0.6B"))).tokenizer_config["tokenizer_class"]  # doctest: +SKIP
        'Qwen2Tokenizer'
    """

    folder: Folder
    as_reference: bool = False

    def place(self, name: str) -> Place:
        return Place(self.folder.path_of(name))

    def _object(self, name: str) -> Mapping[str, Any] | None:
        return read_json_object(self.folder, name) if self.folder.has(name) else None

    @cached_property
    def tokenizer_bytes(self) -> bytes | None:
        """tokenizer.json as unparsed bytes, for the `tokenizers` library."""
        return _read_bytes(self.folder, "tokenizer.json")

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
        """config.json without any defaults."""
        return self._object("config.json")

    @cached_property
    def vocab(self) -> Mapping[str, Any] | None:
        return self._object("vocab.json")

    @cached_property
    def merges(self) -> str | None:
        return _read_text(self.folder, "merges.txt")

    @cached_property
    def wordpieces(self) -> str | None:
        """vocab.txt, which has one token per line."""
        return _read_text(self.folder, "vocab.txt")

    @cached_property
    def sentencepiece(self) -> bytes | None:
        """tokenizer.model as unparsed bytes."""
        return _read_vocabulary(self.folder, "tokenizer.model")

    def content(self, name: str) -> bytes | None:
        """The unparsed bytes of a file that only few vocabularies have."""
        return _read_vocabulary(self.folder, name)

    def text(self, name: str) -> str | None:
        """A text file that only few vocabularies have, with `\\n` line ends."""
        return _read_text(self.folder, name)

    def object(self, name: str) -> Mapping[str, Any] | None:
        """A JSON file that only few vocabularies have."""
        return self._object(name)

    @cached_property
    def chat_template_jinja(self) -> str | None:
        return _read_text(self.folder, "chat_template.jinja")

    @cached_property
    def chat_template_json(self) -> Mapping[str, Any] | None:
        return self._object("chat_template.json")

    @cached_property
    def additional_chat_templates(self) -> dict[str, str]:
        """Name -> template, from the folder additional_chat_templates, in order of name."""
        folder = self.folder.subfolder("additional_chat_templates")
        found = (name for name in folder.names() if name.endswith(_JINJA))
        return {name.removesuffix(_JINJA): text for name in found if (text := _read_text(folder, name)) is not None}
