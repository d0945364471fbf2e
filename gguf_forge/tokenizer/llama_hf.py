"""SentencePiece-like BPE vocabularies that come as tokenizer.json without tokenizer.model.

Source: gguf-py's `LlamaHfVocab`, and `_set_vocab_llama_hf` and Gemma 4's `set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

import re

from gguf_forge.gguf_file.values import Metadata, boolean
from gguf_forge.tokenizer.auto_tokenizer import AutoTokenizer, load_tokenizer
from gguf_forge.tokenizer.checks import as_mapping
from gguf_forge.tokenizer.scored_vocabulary import scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_model import Pieces
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import TokenizerSource

# The score of every token, because these files have no scores.
_SCORE = -1000.0
_GEMMA4_VISIBLE = frozenset(
    mark.encode() for name in ("channel", "tool_call", "tool_response") for mark in (f"<|{name}>", f"<{name}|>")
) | {b'<|"|>'}
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


def llama_hf(source: TokenizerSource) -> Metadata | None:
    """The metadata of a SentencePiece-like tokenizer.json; None if the folder has no such file."""
    vocabulary = _read(source)
    if vocabulary is None:
        return None
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
    tokenizer = load_tokenizer(source.files) if _is_sentencepiece_like(source) else None
    return None if tokenizer is None else _vocabulary(tokenizer)


def _is_sentencepiece_like(source: TokenizerSource) -> bool:
    tokenizer = source.files.tokenizer
    if tokenizer is None:
        return False
    place = source.files.place("tokenizer.json")
    model = as_mapping(tokenizer.get("model"), place / "model")
    decoder = as_mapping(tokenizer.get("decoder") or {}, place / "decoder")
    kinds = (model.get("type"), decoder.get("type"))
    return kinds == ("BPE", "Sequence") and bool(model.get("byte_fallback"))


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
