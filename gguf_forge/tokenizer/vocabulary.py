"""What tokenizer readers take and give, and how a model family composes its own from them.

A reader is a function of a `TokenizerSource`; it gives metadata in file order, or None where the folder lacks
the files it needs. A family declares one:

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
    """All that a reader may look at.

    Attributes:
        files: The folder's tokenizer files.
        config: The model's configuration with the defaults of its class (`vocab_size` is what readers use).
        pre_tokenizer: A pre-tokenizer name given by the user, instead of the one found by hash.
    """

    files: TokenizerFiles
    config: Mapping[str, Any]
    pre_tokenizer: str | None = None


Reader: TypeAlias = Callable[[TokenizerSource], "Metadata | None"]


def first_of(*readers: Reader) -> Reader:
    """The first reader whose files are there."""

    def read(source: TokenizerSource) -> Metadata | None:
        for reader in readers:
            metadata = reader(source)
            if metadata is not None:
                return metadata
        return None

    return read


def in_order(*readers: Reader) -> Reader:
    """The metadata of all readers; None if one lacks its files. A key given again keeps its place."""

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
    """The reader where the condition holds, nothing elsewhere."""

    def read(source: TokenizerSource) -> Metadata | None:
        return reader(source) if condition(source) else {}

    return read


def either(condition: Callable[[TokenizerSource], bool], reader: Reader, other: Reader) -> Reader:
    """The first reader where the condition holds, the other one elsewhere."""
    return lambda source: reader(source) if condition(source) else other(source)


def with_rounded_size(reader: Reader, multiple: int) -> Reader:
    """The reader for a model whose vocab_size is rounded up to a multiple: pad_vocab_size_multiple or the given."""

    def read(source: TokenizerSource) -> Metadata | None:
        place = source.files.place("config.json")
        step = vocabulary_size(source.config, place, ("pad_vocab_size_multiple",)) or multiple
        size = vocabulary_size(source.config, place)
        config = source.config if size is None else {**source.config, "vocab_size": -(-size // step) * step}
        return reader(replace(source, config=config))

    return read


def has_vocab_size(size: int) -> Callable[[TokenizerSource], bool]:
    """A condition for `when` and `either`: how some families tell their variants apart."""
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
    """How many kinds of token the embeddings tell apart, as the configuration says; 1 where it does not say."""
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
    """`add_space_prefix` as tokenizer_config.json's add_prefix_space says, nothing where it does not say."""
    flag = (source.files.tokenizer_config or {}).get("add_prefix_space")
    if flag is None:
        return {}
    place = source.files.place("tokenizer_config.json") / "add_prefix_space"
    return {"tokenizer.ggml.add_space_prefix": boolean(as_flag(flag, place))}
