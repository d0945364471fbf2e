"""Vocabularies that are the same for every model of a family, and that its folders do not have.

Source: `_set_vocab_builtin` and `_set_vocab_none` in llama.cpp's converter.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from importlib.resources import files as package_files
from typing import Any, Literal

from gguf_forge.gguf_file.values import Metadata, Value, ValueType, array, string
from gguf_forge.tokenizer.checks import vocabulary_size
from gguf_forge.tokenizer.vocabulary import Reader, TokenizerSource
from gguf_forge.wording import log_of

log = log_of(__name__)

# The keys whose arrays are cut to the model's number of tokens.
_PER_TOKEN = frozenset(f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type"))


def builtin(name: Literal["gpt-neox", "llama-spm"]) -> Reader:
    """A reader that uses a vocabulary which comes with the package, cut to the model's vocab_size.

    Example:
        >>> from gguf_forge.tokenizer import bpe, first_of, sentencepiece
        >>> mamba = first_of(bpe, sentencepiece, builtin("gpt-neox"))
    """

    def read(source: TokenizerSource) -> Metadata:
        log.warning("%s has no tokenizer files; the vocabulary of %s is taken", source.files.folder.path, name)
        size = vocabulary_size(source.config, source.files.place("config.json"))
        return {key: _value(key, ValueType[type], value, size) for key, type, value in _entries(name)}

    return read


def no_vocabulary(_: TokenizerSource) -> Metadata:
    """The metadata of a model that has no vocabulary."""
    return {"tokenizer.ggml.model": string("none")}


@cache
def _entries(name: str) -> list[tuple[str, str, Any]]:
    data = package_files(__package__).joinpath(f"builtin_vocabularies/{name}.json.xz").read_bytes()
    return [(key, type, value) for key, type, value in json.loads(lzma.decompress(data))]


def _value(key: str, type: ValueType, value: Any, size: int | None) -> Value:
    if isinstance(value, list):
        return array(type, value[:size] if key in _PER_TOKEN else value)
    return Value(type, value)
