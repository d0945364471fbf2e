"""The type of tokenizer readers, and functions with which a model family composes its own reader.

A reader is a function that takes a `TokenizerSource`. It returns metadata in file order, or None if the folder lacks
the files that it needs. A family declares one reader:

    gemma3 = first_of(in_order(sentencepiece, add_space_prefix(False)), bpe)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from gguf_forge.gguf_file.values import Metadata, boolean, u32
from gguf_forge.tokenizer.checks import as_flag, as_id, vocabulary_size
from gguf_forge.tokenizer.files import TokenizerFiles


@dataclass(frozen=True)
class TokenizerSource:
    """The input of a reader.

    Attributes:
        files: The folder's tokenizer files.
        config: The model's configuration with the defaults of its class (`vocab_size` is what readers use).
        pre_tokenizer: A pre-tokenizer name given by the user, which replaces the one found by hash.
    """

    files: TokenizerFiles
    config: Mapping[str, Any]
    pre_tokenizer: str | None = None


Reader: TypeAlias = Callable[[TokenizerSource], "Metadata | None"]


def first_of(*readers: Reader) -> Reader:
    """The metadata of the first reader whose files are in the folder."""

    def read(source: TokenizerSource) -> Metadata | None:
        for reader in readers:
            metadata = reader(source)
            if metadata is not None:
                return metadata
        return None

    return read


def in_order(*readers: Reader) -> Reader:
    """The metadata of all readers, joined; None if one lacks its files.

    If two readers give the same key, the later value counts, and the key keeps its first place.
    """

    def read(source: TokenizerSource) -> Metadata | None:
        merged: Metadata = {}
        for reader in readers:
            metadata = reader(source)
            if metadata is None:
                return None
            merged.update(metadata)
        return merged

    return read


def when(condition: Callable[[TokenizerSource], bool], reader: Reader) -> Reader:
    """The reader's metadata if the condition holds, otherwise empty metadata."""

    def read(source: TokenizerSource) -> Metadata | None:
        return reader(source) if condition(source) else {}

    return read


def either(condition: Callable[[TokenizerSource], bool], reader: Reader, other: Reader) -> Reader:
    """The first reader if the condition holds, otherwise the other one."""
    return lambda source: reader(source) if condition(source) else other(source)


def with_rounded_size(reader: Reader, multiple: int) -> Reader:
    """The reader for a model whose vocab_size must be rounded up.

    It is rounded to a multiple of the config's pad_vocab_size_multiple, or of `multiple` if the config lacks this key.
    """

    def read(source: TokenizerSource) -> Metadata | None:
        place = source.files.place("config.json")
        step = vocabulary_size(source.config, place, ("pad_vocab_size_multiple",)) or multiple
        size = vocabulary_size(source.config, place)
        config = source.config if size is None else {**source.config, "vocab_size": -(-size // step) * step}
        return reader(replace(source, config=config))

    return read


def has_vocab_size(size: int) -> Callable[[TokenizerSource], bool]:
    """A condition for `when` and `either`: the model's vocab_size. Some families have variants that differ in it."""
    return lambda source: source.config.get("vocab_size") == size


def has_tokenizer_class(name: str) -> Callable[[TokenizerSource], bool]:
    """A condition: the class that tokenizer_config.json names."""
    return lambda source: (source.files.tokenizer_config or {}).get("tokenizer_class") == name


def has_model_type(name: str) -> Callable[[TokenizerSource], bool]:
    """A condition: the kind of tokenizer in tokenizer.json (`BPE`, `WordPiece`, `Unigram`)."""
    return lambda source: _part_type(source, "model") == name


def has_pre_tokenizer(name: str) -> Callable[[TokenizerSource], bool]:
    """A condition: the kind of pre-tokenizer in tokenizer.json."""
    return lambda source: _part_type(source, "pre_tokenizer") == name


def _part_type(source: TokenizerSource, part: str) -> object:
    value = (source.files.tokenizer or {}).get(part)
    return value.get("type") if isinstance(value, dict) else None


def token_type_count(source: TokenizerSource) -> Metadata:
    """The number of token types that the embeddings distinguish, from the configuration; 1 if it gives none."""
    place = source.files.place("config.json") / "type_vocab_size"
    return {"tokenizer.ggml.token_type_count": u32(as_id(source.config.get("type_vocab_size", 1), place))}


def fixed_token_type_count(count: int) -> Reader:
    return lambda _: {"tokenizer.ggml.token_type_count": u32(count)}


def add_space_prefix(flag: bool) -> Reader:
    return lambda _: {"tokenizer.ggml.add_space_prefix": boolean(flag)}


def add_bos_token(flag: bool) -> Reader:
    return lambda _: {"tokenizer.ggml.add_bos_token": boolean(flag)}


def add_eos_token(flag: bool) -> Reader:
    return lambda _: {"tokenizer.ggml.add_eos_token": boolean(flag)}


def add_sep_token(flag: bool) -> Reader:
    return lambda _: {"tokenizer.ggml.add_sep_token": boolean(flag)}


def configured_space_prefix(source: TokenizerSource) -> Metadata:
    """`add_space_prefix` from add_prefix_space in tokenizer_config.json; nothing if this is missing."""
    flag = (source.files.tokenizer_config or {}).get("add_prefix_space")
    if flag is None:
        return {}
    place = source.files.place("tokenizer_config.json") / "add_prefix_space"
    return {"tokenizer.ggml.add_space_prefix": boolean(as_flag(flag, place))}
