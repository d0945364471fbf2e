"""Byte-level BPE vocabularies (llama.cpp's model `gpt2`): tokenizer.json, or vocab.json with merges.txt.

Source: `_set_vocab_gpt2` and `_set_vocab_whitespace` in llama.cpp's converter.
"""

from __future__ import annotations

from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer.base_vocabulary import read_base_vocabulary
from gguf_forge.tokenizer.checks import as_list, as_mapping
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.vocabulary import TokenizerSource


def bpe(source: TokenizerSource) -> Metadata | None:
    """The metadata of a byte-level BPE vocabulary; None without its files.

    Raises:
        InputError: a file is broken, or the vocabulary does not fit the model's vocab_size.
        UnsupportedError: the pre-tokenizer is unknown, and none was named.
        UsageError: the named pre-tokenizer is none of llama.cpp's.
    """
    vocabulary = read_base_vocabulary(source)
    if vocabulary is None:
        return None
    return {**vocabulary.metadata("gpt2"), **special_tokens(source.files, with_merges=True)}


def whitespace(source: TokenizerSource) -> Metadata | None:
    """The metadata of a vocabulary of whole words between spaces; None without its files."""
    vocabulary = read_base_vocabulary(source, pre_tokenizer="whitespace")
    if vocabulary is None:
        return None
    return {**vocabulary.metadata("whitespace"), **special_tokens(source.files, with_merges=True)}


def tokenizer_json_size(source: TokenizerSource) -> int | None:
    """How many tokens tokenizer.json lists (those in both of its lists count twice); None without it."""
    tokenizer = source.files.tokenizer
    if tokenizer is None:
        return None
    place = source.files.place("tokenizer.json")
    model = as_mapping(tokenizer.get("model"), place / "model")
    added = as_list(tokenizer.get("added_tokens", []), place / "added_tokens")
    return len(as_mapping(model.get("vocab"), place / "model" / "vocab")) + len(added)
