"""Byte-level BPE vocabularies (llama.cpp's model `gpt2`): tokenizer.json, or vocab.json with merges.txt.

Source: `get_vocab_base` and `_set_vocab_gpt2` in llama.cpp's converter.
"""

from __future__ import annotations

from gguf_forge.gguf_file.values import Metadata, ValueType, array, string
from gguf_forge.tokenizer.auto_tokenizer import AutoTokenizer, load_tokenizer
from gguf_forge.tokenizer.checks import as_list, as_mapping, vocabulary_size
from gguf_forge.tokenizer.pre_tokenizers import PROBE, checked_name, name_of
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType, added_token
from gguf_forge.tokenizer.vocabulary import TokenizerSource


def bpe(source: TokenizerSource) -> Metadata | None:
    """The metadata of a byte-level BPE vocabulary; None without its files.

    Raises:
        InputError: a file is broken, or the vocabulary does not fit the model's vocab_size.
        UnsupportedError: the pre-tokenizer is unknown, and none was named.
        UsageError: the named pre-tokenizer is none of llama.cpp's.
    """
    tokenizer = load_tokenizer(source.files)
    if tokenizer is None:
        return None
    texts, types = _tokens(tokenizer, source)
    return {
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string(_pre_tokenizer(tokenizer, source)),
        "tokenizer.ggml.tokens": array(ValueType.STRING, texts),
        "tokenizer.ggml.token_type": array(ValueType.INT32, map(int, types)),
        **special_tokens(source.files, with_merges=True),
    }


def tokenizer_json_size(source: TokenizerSource) -> int | None:
    """How many tokens tokenizer.json lists (those in both of its lists count twice); None without it."""
    tokenizer = source.files.tokenizer
    if tokenizer is None:
        return None
    place = source.files.place("tokenizer.json")
    model = as_mapping(tokenizer.get("model"), place / "model")
    added = as_list(tokenizer.get("added_tokens", []), place / "added_tokens")
    return len(as_mapping(model.get("vocab"), place / "model" / "vocab")) + len(added)


def _pre_tokenizer(tokenizer: AutoTokenizer, source: TokenizerSource) -> str:
    if source.pre_tokenizer is not None:
        return checked_name(source.pre_tokenizer)
    return name_of(tokenizer.encode(PROBE), source.files.tokenizer, source.files.folder)


def _tokens(tokenizer: AutoTokenizer, source: TokenizerSource) -> tuple[list[str], list[TokenType]]:
    vocabulary = tokenizer.vocabulary()
    if not vocabulary:
        raise tokenizer.place.error("has no tokens")
    highest = max(vocabulary.values())
    size = vocabulary_size(source.config, source.files.place("config.json")) or len(vocabulary)
    if highest >= size:
        raise tokenizer.place.error(
            f"has a token with id {highest}, and the model's vocab_size is {size}",
            "the tokenizer has more tokens than the model has embedding rows: take the model's own, "
            "or resize its embeddings and vocab_size in config.json",
        )
    texts = [f"[PAD{id}]" for id in range(size)]
    types = [TokenType.UNUSED] * size
    for text, id in vocabulary.items():
        texts[id] = text
        types[id] = TokenType.NORMAL
    for id, token in tokenizer.added_tokens().items():
        # Runtimes match added tokens in plain text, so one that the normalizer changes is written changed.
        text = token.content if token.normalized else tokenizer.round_trip(token.content)
        texts[id], types[id] = added_token(text, token.special)
    return texts, types
