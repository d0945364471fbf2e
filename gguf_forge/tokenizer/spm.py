"""Vocabularies of SentencePiece models: tokenizer.model, and the tokens that JSON files add to it.

Source: `_create_vocab_sentencepiece` and Phi-3's `set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from gguf_forge.gguf_file.values import Metadata, ValueType, array, string
from gguf_forge.tokenizer.checks import (
    Place,
    as_decimal_id,
    as_flag,
    as_id,
    as_list,
    as_mapping,
    as_text,
    vocabulary_size,
)
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.sentencepiece_model import Pieces, read_pieces
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType, added_token
from gguf_forge.tokenizer.vocabulary import TokenizerSource

log = logging.getLogger(__name__)

_PADDING_SCORE = -10000.0
_ADDED_SCORE = -1000.0


@dataclass(frozen=True)
class Added:
    """A token that a JSON file adds or changes, and where it says so."""

    id: int
    text: str
    type: TokenType
    place: Place


def sentencepiece(source: TokenizerSource) -> Metadata | None:
    """The metadata of a SentencePiece vocabulary; None without tokenizer.model.

    The vocabulary has as many tokens as the configuration says: holes are `[PADn]`, the excess is left out.
    """
    pieces = _pieces(source.files)
    if pieces is None:
        return None
    size = _size(source, pieces, ("vocab_size_per_layer_input", "vocab_size"))
    if len(pieces.texts) > size:
        log.warning("tokenizer.model has %d tokens; those from %d on are left out", len(pieces.texts), size)
    vocabulary = _padded(pieces, size)
    for token in (*_from_added_tokens(source.files), *_from_tokenizer_config(source.files)):
        if token.id < size:
            _put(vocabulary, token)
        else:
            log.warning("token %d (%r) is left out: the vocabulary has %d", token.id, token.text, size)
    return _metadata(source, vocabulary)


def phi3(source: TokenizerSource) -> Metadata | None:
    """Phi-3's reading of a SentencePiece vocabulary; None without tokenizer.model.

    Added tokens are user-defined unless marked special, whatever their text; tokenizer.json has some too.
    """
    pieces = _pieces(source.files)
    if pieces is None:
        return None
    size = _size(source, pieces, ("vocab_size",))
    if len(pieces.texts) > size:
        raise source.files.place("tokenizer.model").error(
            f"has {len(pieces.texts)} tokens, and the model's vocab_size is {size}",
            "correct vocab_size in config.json, or take the tokenizer that the model was trained with",
        )
    vocabulary = _padded(pieces, size)
    for token in _from_added_tokens(source.files):
        if token.id < size:
            _put(vocabulary, token)
    for token in (*_from_tokenizer_config(source.files, by_text=False), *_from_tokenizer(source.files)):
        if token.id >= size:
            raise token.place.error(f"is token {token.id}, and the model's vocab_size is {size}")
        _put(vocabulary, token)
    return _metadata(source, vocabulary)


def sentencepiece_size(source: TokenizerSource) -> int | None:
    """How many tokens `sentencepiece` writes; None without tokenizer.model."""
    pieces = _pieces(source.files)
    return None if pieces is None else _size(source, pieces, ("vocab_size_per_layer_input", "vocab_size"))


def _pieces(files: TokenizerFiles) -> Pieces | None:
    data = files.sentencepiece
    return None if data is None else read_pieces(data, files.place("tokenizer.model"))


def _size(source: TokenizerSource, pieces: Pieces, keys: tuple[str, ...]) -> int:
    return vocabulary_size(source.config, source.files.place("config.json"), keys) or len(pieces.texts)


def _padded(pieces: Pieces, size: int) -> Pieces:
    used = min(len(pieces.texts), size)
    holes = range(used, size)
    # The pieces that the user defined when training are written as plain ones.
    plain = {TokenType.USER_DEFINED: TokenType.NORMAL}
    return Pieces(
        pieces.texts[:used] + [b"[PAD%d]" % index for index in holes],
        pieces.scores[:used] + [_PADDING_SCORE] * len(holes),
        [plain.get(kind, kind) for kind in pieces.types[:used]] + [TokenType.UNUSED] * len(holes),
    )


def _put(vocabulary: Pieces, token: Added) -> None:
    text = token.text.encode()
    if vocabulary.types[token.id] is not TokenType.UNUSED and vocabulary.texts[token.id] != text:
        log.info("token %d: %r becomes %r", token.id, vocabulary.texts[token.id].decode(), token.text)
    vocabulary.texts[token.id] = text
    vocabulary.scores[token.id] = _ADDED_SCORE
    vocabulary.types[token.id] = token.type


def _from_added_tokens(files: TokenizerFiles) -> Iterator[Added]:
    place = files.place("added_tokens.json")
    for text, id in (files.added_tokens or {}).items():
        here = place / repr(text)
        yield Added(as_id(id, here), as_text(text, here), TokenType.USER_DEFINED, here)


def _from_tokenizer_config(files: TokenizerFiles, by_text: bool = True) -> Iterator[Added]:
    place = files.place("tokenizer_config.json") / "added_tokens_decoder"
    listed = (files.tokenizer_config or {}).get("added_tokens_decoder", {})
    for key, value in as_mapping(listed, place).items():
        here = place / key
        text, special = _text_and_special(value, here)
        text, kind = added_token(text, special) if by_text else (text, _marked(special))
        yield Added(as_decimal_id(key, place), text, kind, here)


def _from_tokenizer(files: TokenizerFiles) -> Iterator[Added]:
    place = files.place("tokenizer.json") / "added_tokens"
    for index, value in enumerate(as_list((files.tokenizer or {}).get("added_tokens", []), place)):
        here = place / index
        text, special = _text_and_special(value, here)
        yield Added(as_id(value.get("id"), here / "id"), text, _marked(special), here)


def _text_and_special(value: object, place: Place) -> tuple[str, bool]:
    token = as_mapping(value, place)
    special = as_flag(token.get("special", False), place / "special")
    return as_text(token.get("content"), place / "content"), special


def _marked(special: bool) -> TokenType:
    return TokenType.CONTROL if special else TokenType.USER_DEFINED


def _metadata(source: TokenizerSource, vocabulary: Pieces) -> Metadata:
    return {
        **scored_vocabulary(vocabulary),
        **special_tokens(source.files, vocabulary_size=len(vocabulary.texts)),
    }


def scored_vocabulary(vocabulary: Pieces) -> Metadata:
    """The metadata of a vocabulary in which each token has a score (llama.cpp's model `llama`)."""
    return {
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.pre": string("default"),
        "tokenizer.ggml.tokens": array(ValueType.STRING, vocabulary.texts),
        "tokenizer.ggml.scores": array(ValueType.FLOAT32, vocabulary.scores),
        "tokenizer.ggml.token_type": array(ValueType.INT32, map(int, vocabulary.types)),
    }
