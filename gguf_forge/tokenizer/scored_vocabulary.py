"""Vocabularies in which each token has a score.

Source: `_create_vocab_sentencepiece` in llama.cpp's converter.
"""

from __future__ import annotations

from gguf_forge.gguf_file.values import Metadata, ValueType, array, string
from gguf_forge.tokenizer.sentencepiece_model import Pieces
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.wording import log_of

log = log_of(__name__)

PADDING_SCORE = -10000.0


def padded(pieces: Pieces, size: int) -> Pieces:
    """The pieces, brought to `size`: missing tokens become `[PADn]`, tokens beyond `size` are left out."""
    used = min(len(pieces.texts), size)
    holes = range(used, size)
    # Pieces that the user defined for the training are written as normal ones.
    plain = {TokenType.USER_DEFINED: TokenType.NORMAL}
    return Pieces(
        pieces.texts[:used] + [b"[PAD%d]" % index for index in holes],
        pieces.scores[:used] + [PADDING_SCORE] * len(holes),
        [plain.get(kind, kind) for kind in pieces.types[:used]] + [TokenType.UNUSED] * len(holes),
    )


def fitted(pieces: Pieces, size: int, file: str) -> Pieces:
    """The pieces, brought to `size` like `padded` does, with all types as they are. `file` is named in the warning."""
    if len(pieces.texts) > size:
        log.warning("%s has %d tokens; those from %d on are left out", file, len(pieces.texts), size)
    resized = padded(pieces, size)
    used = min(len(pieces.types), size)
    return Pieces(resized.texts, resized.scores, [*pieces.types[:used], *resized.types[used:]])


def scored_vocabulary(vocabulary: Pieces, model: str = "llama") -> Metadata:
    """The metadata keys of the vocabulary. `model` is llama.cpp's name for the kind of tokenizer."""
    return {
        "tokenizer.ggml.model": string(model),
        "tokenizer.ggml.pre": string("default"),
        "tokenizer.ggml.tokens": array(ValueType.STRING, vocabulary.texts),
        "tokenizer.ggml.scores": array(ValueType.FLOAT32, vocabulary.scores),
        "tokenizer.ggml.token_type": array(ValueType.INT32, map(int, vocabulary.types)),
    }
