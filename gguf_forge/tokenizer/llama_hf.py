"""SentencePiece-like BPE vocabularies that come as tokenizer.json without tokenizer.model.

Source: gguf-py's `LlamaHfVocab`, and `_set_vocab_llama_hf` and Gemma 4's `set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

import re

from gguf_forge.errors import UsageError
from gguf_forge.gguf_file.values import Metadata, boolean
from gguf_forge.tokenizer.auto_tokenizer import AutoTokenizer, load_tokenizer, settled_tokens
from gguf_forge.tokenizer.checks import vocabulary_size
from gguf_forge.tokenizer.merges import merged_texts
from gguf_forge.tokenizer.scored_vocabulary import fitted, scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_json import (
    is_sentencepiece_bpe,
    merge_scores,
    pair_without_merge,
    prepends_space,
)
from gguf_forge.tokenizer.sentencepiece_model import Pieces
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import TokenizerSource
from gguf_forge.wording import log_of

log = log_of(__name__)

# The score of every token in the reference's file.
_SCORE = -1000.0
# The pre-tokenizers that do not split a text.
_OF_SENTENCEPIECE = ("default", "gemma4")
_GEMMA4_VISIBLE = frozenset(
    mark.encode() for name in ("channel", "tool_call", "tool_response") for mark in (f"<|{name}>", f"<{name}|>")
) | {b'<|"|>'}
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


def llama_hf(source: TokenizerSource) -> Metadata | None:
    """The metadata of a SentencePiece-like tokenizer.json; None if the folder has no such file.

    The scores are made of the merges. The reference gives all tokens the same score, with which llama.cpp joins pairs
    from the left and not in the order of the merges.
    """
    vocabulary = _read(source)
    if vocabulary is None:
        return None
    if not source.files.as_reference:
        _check_pre_tokenizer(source)
        return _ranked(source, vocabulary)
    return {
        **scored_vocabulary(vocabulary),
        **special_tokens(source.files, vocabulary_size=len(vocabulary.texts)),
    }


def gemma4(source: TokenizerSource) -> Metadata | None:
    """Gemma 4's reading of a SentencePiece-like tokenizer.json, with merges; None if the folder has no such file.

    The marks of thoughts and tool calls are user-defined tokens, so that runtimes show them and chat parsers can read
    them.
    """
    vocabulary = _read(source)
    if vocabulary is None:
        return None
    for id, text in enumerate(vocabulary.texts):
        if text in _GEMMA4_VISIBLE:
            vocabulary.types[id] = TokenType.USER_DEFINED
    metadata = scored_vocabulary(vocabulary, "gemma4")
    del metadata["tokenizer.ggml.pre"]
    return {
        **metadata,
        **special_tokens(source.files, with_merges=True),
        "tokenizer.ggml.add_space_prefix": boolean(False),
        "tokenizer.ggml.add_bos_token": boolean(True),
    }


def _read(source: TokenizerSource) -> Pieces | None:
    tokenizer = load_tokenizer(source.files) if is_sentencepiece_bpe(source.files) else None
    return None if tokenizer is None else _vocabulary(tokenizer)


def _vocabulary(tokenizer: AutoTokenizer) -> Pieces:
    base_size = tokenizer.base_size()
    by_id = {id: text for text, id in tokenizer.vocabulary().items()}
    special = set(tokenizer.special_tokens)
    pieces = Pieces()
    for id in range(base_size):
        if id not in by_id:
            raise tokenizer.place.error(f"has {base_size} tokens, but none with id {id}")
        text = by_id[id]
        plain = TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.NORMAL
        pieces.append(
            text.encode(), _SCORE, TokenType.CONTROL if text in special and plain is TokenType.NORMAL else plain
        )
    for id, token in sorted(tokenizer.added_tokens().items()):
        if id >= base_size:
            kind = TokenType.CONTROL if token.content in special else TokenType.USER_DEFINED
            pieces.append(token.content.encode(), _SCORE, kind)
    return pieces


def _ranked(source: TokenizerSource, pieces: Pieces) -> Metadata:
    """The metadata with the scores that the merges give, and with as many tokens as the model has.

    An added token that no merge makes is found in the text before anything is joined, so it is a user-defined one.
    """
    files = source.files
    texts = [text.decode() for text in pieces.texts]
    found_first = {token.content for token in settled_tokens(files)[0]}.difference(merged_texts(files))
    types = [
        TokenType.USER_DEFINED if kind is TokenType.NORMAL and text in found_first else kind
        for text, kind in zip(texts, pieces.types, strict=True)
    ]
    if (pair := pair_without_merge(files)) is not None:
        log.warning(
            "%s: no merge joins %r and %r, and llama.cpp joins all pairs that make a token of such a vocabulary: some "
            "texts are split in another way than in training",
            *(files.folder.path_of("tokenizer.json"), *pair),
        )
    size = vocabulary_size(source.config, files.place("config.json")) or len(texts)
    vocabulary = fitted(Pieces(pieces.texts, merge_scores(files, texts), types), size, "tokenizer.json")
    metadata = {**scored_vocabulary(vocabulary), **special_tokens(files, vocabulary_size=size)}
    if not prepends_space(files.tokenizer or {}):
        metadata["tokenizer.ggml.add_space_prefix"] = boolean(False)
    return metadata


def _check_pre_tokenizer(source: TokenizerSource) -> None:
    if source.pre_tokenizer not in (None, *_OF_SENTENCEPIECE):
        raise UsageError(
            f"--pre-tokenizer {source.pre_tokenizer}: a SentencePiece vocabulary is not split into words first",
            file=source.files.folder.path_of("tokenizer.json"),
            hint="leave --pre-tokenizer out",
        )
