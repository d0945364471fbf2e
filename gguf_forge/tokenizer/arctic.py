"""Arctic's vocabulary: a SentencePiece model. tokenizer_config.json redefines some of its tokens.

Source: Arctic's `set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer.added_pieces import from_tokenizer_config
from gguf_forge.tokenizer.checks import vocabulary_size
from gguf_forge.tokenizer.scored_vocabulary import PADDING_SCORE, padded, scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_model import read_model
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import TokenizerSource


def arctic(source: TokenizerSource) -> Metadata | None:
    """The metadata of Arctic's tokenizer.model; None without one. Redefined special tokens keep the score 0."""
    files, data = source.files, source.files.sentencepiece
    if data is None:
        return None
    pieces = read_model(data, files.place("tokenizer.model")).pieces
    size = vocabulary_size(source.config, files.place("config.json"), ("vocab_size",)) or len(pieces.texts)
    vocabulary = padded(pieces, size)
    unknown = (files.tokenizer_config or {}).get("unk_token")
    for token in from_tokenizer_config(files, by_text=False):
        if token.id >= size:
            continue
        special = token.type is TokenType.CONTROL
        vocabulary.texts[token.id] = token.text.encode()
        vocabulary.scores[token.id] = 0.0 if special else PADDING_SCORE
        vocabulary.types[token.id] = TokenType.UNKNOWN if special and token.text == unknown else token.type
    return {**scored_vocabulary(vocabulary), **special_tokens(files, vocabulary_size=size)}
