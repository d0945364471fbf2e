"""WordPiece vocabularies (llama.cpp's model `bert`): tokenizer.json, or vocab.txt.

Source: `BertModel.set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer.base_vocabulary import read_base_vocabulary
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import TokenizerSource, token_type_count

_CONTINUATION = "##"


def wordpiece(source: TokenizerSource) -> Metadata | None:
    """The metadata of a WordPiece vocabulary, after the number of token types; None without its files.

    Raises:
        InputError: a file is broken, or the vocabulary does not fit the model's vocab_size.
        UnsupportedError: the pre-tokenizer is unknown, and the user named none.
        UsageError: llama.cpp does not know the named pre-tokenizer.
    """
    vocabulary = read_base_vocabulary(source)
    if vocabulary is None:
        return None
    texts = [_marked_at_start(text, kind) for text, kind in zip(vocabulary.texts, vocabulary.types, strict=True)]
    return {
        **token_type_count(source),
        **replace(vocabulary, texts=texts).metadata("bert"),
        **special_tokens(source.files, vocabulary_size=len(texts)),
    }


def _marked_at_start(text: str, kind: TokenType) -> str:
    """A token as llama.cpp stores it, with a mark at the start of a word. WordPiece marks the continuation instead."""
    if kind is TokenType.CONTROL:
        return text
    return text[len(_CONTINUATION) :] if text.startswith(_CONTINUATION) else f"\u2581{text}"
