"""Xverse's vocabulary: SentencePiece-like texts from tokenizer.json, and the scores that its merges give.

Source: Xverse's `set_vocab` in llama.cpp's converter, which writes no scores. llama.cpp then joins pairs from the left.
"""

from __future__ import annotations

import re

from gguf_forge.gguf_file.values import Metadata, ValueType, array, string
from gguf_forge.tokenizer.auto_tokenizer import load_tokenizer
from gguf_forge.tokenizer.checks import vocabulary_size
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.sentencepiece_json import merge_scores
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType, marked
from gguf_forge.tokenizer.vocabulary import TokenizerSource

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
# A zero byte, which would end a C string, is written in this printed form.
_NUL, _PRINTED_NUL = "\0", "<b'\\x00'>"


def xverse(source: TokenizerSource) -> Metadata | None:
    """The metadata of Xverse's tokenizer.json; None without one.

    Raises:
        InputError: the tokenizer has more tokens than the model, or lacks one of the model's tokens.
    """
    tokenizer = load_tokenizer(source.files) if source.files.tokenizer is not None else None
    if tokenizer is None:
        return None
    by_id = {id: text for text, id in tokenizer.vocabulary().items()}
    size = vocabulary_size(source.config, source.files.place("config.json"), ("vocab_size",)) or len(by_id)
    if set(by_id) != set(range(size)):
        raise tokenizer.place.error(
            f"has {len(by_id)} tokens up to id {max(by_id, default=0)}, and the model has {size}",
            "each of the model's tokens needs a text: take the tokenizer that the model was trained with",
        )
    added = {token.content: marked(token.special) for token in tokenizer.added_tokens().values()}

    def typed(text: str) -> TokenType:
        return TokenType.BYTE if text == _NUL or _BYTE.fullmatch(text) else added.get(text, TokenType.NORMAL)

    texts = [by_id[id] for id in range(size)]
    return {
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.pre": string("default"),
        "tokenizer.ggml.tokens": array(
            ValueType.STRING, [(_PRINTED_NUL if text == _NUL else text).encode() for text in texts]
        ),
        **({} if source.files.as_reference else _scores(source.files, texts)),
        "tokenizer.ggml.token_type": array(ValueType.INT32, [int(typed(text)) for text in texts]),
        **special_tokens(source.files, vocabulary_size=size),
    }


def _scores(files: TokenizerFiles, texts: list[str]) -> Metadata:
    return {"tokenizer.ggml.scores": array(ValueType.FLOAT32, merge_scores(files, texts))}
