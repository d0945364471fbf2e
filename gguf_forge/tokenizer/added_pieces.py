"""The tokens that JSON files add to the pieces of a SentencePiece model.

Source: `_create_vocab_sentencepiece` and Phi-3's `set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gguf_forge.errors import some_of
from gguf_forge.tokenizer.checks import Place, as_decimal_id, as_flag, as_id, as_list, as_mapping, as_text
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.sentencepiece_model import Pieces
from gguf_forge.tokenizer.token_types import TokenType, added_token, marked
from gguf_forge.wording import log_of

log = log_of(__name__)

ADDED_SCORE = -1000.0


@dataclass(frozen=True)
class AddedPiece:
    """A token that a JSON file adds or changes, and its place in this file."""

    id: int
    text: str
    type: TokenType
    place: Place


def add_in_range(vocabulary: Pieces, tokens: Iterable[AddedPiece]) -> None:
    """Puts tokens into the vocabulary. Tokens whose id is beyond its end are left out."""
    size = len(vocabulary.texts)
    beyond = []
    for token in tokens:
        if token.id < size:
            put(vocabulary, token)
        else:
            beyond.append(token.text)
    if beyond:
        log.warning("%d tokens are left out, as the vocabulary has %d: %s", len(beyond), size, some_of(beyond))


def put(vocabulary: Pieces, token: AddedPiece) -> None:
    """Puts a token into the vocabulary, which must have the token's id."""
    text = token.text.encode()
    if vocabulary.types[token.id] is not TokenType.UNUSED and vocabulary.texts[token.id] != text:
        log.info("token %d: %r becomes %r", token.id, vocabulary.texts[token.id].decode(), token.text)
    vocabulary.texts[token.id] = text
    vocabulary.scores[token.id] = ADDED_SCORE
    vocabulary.types[token.id] = token.type


def from_added_tokens(files: TokenizerFiles) -> Iterator[AddedPiece]:
    """The tokens of added_tokens.json."""
    place = files.place("added_tokens.json")
    for text, id in (files.added_tokens or {}).items():
        here = place / repr(text)
        yield AddedPiece(as_id(id, here), as_text(text, here), TokenType.USER_DEFINED, here)


def from_tokenizer_config(files: TokenizerFiles, by_text: bool = True) -> Iterator[AddedPiece]:
    """The tokens of tokenizer_config.json.

    With `by_text`, a token whose text looks like a control token becomes one, even if it is not marked as special.
    """
    place = files.place("tokenizer_config.json") / "added_tokens_decoder"
    listed = (files.tokenizer_config or {}).get("added_tokens_decoder", {})
    for key, value in as_mapping(listed, place).items():
        here = place / key
        text, special = _text_and_special(value, here)
        text, kind = added_token(text, special) if by_text else (text, marked(special))
        yield AddedPiece(as_decimal_id(key, place), text, kind, here)


def from_tokenizer(files: TokenizerFiles) -> Iterator[AddedPiece]:
    """The added tokens of tokenizer.json."""
    place = files.place("tokenizer.json") / "added_tokens"
    for index, value in enumerate(as_list((files.tokenizer or {}).get("added_tokens", []), place)):
        here = place / index
        text, special = _text_and_special(value, here)
        yield AddedPiece(as_id(value.get("id"), here / "id"), text, marked(special), here)


def _text_and_special(value: object, place: Place) -> tuple[str, bool]:
    token = as_mapping(value, place)
    special = as_flag(token.get("special", False), place / "special")
    return as_text(token.get("content"), place / "content"), special
