"""ChatGLM 3's reading of tokenizer.model (llama.cpp's pre-tokenizer `chatglm-spm`).

The publisher's code defines the special tokens. This module has them as data, because the code is never run.

Source: `set_vocab_chatglm3` in llama.cpp's converter, tokenization_chatglm.py of the publisher.
"""

from __future__ import annotations

from gguf_forge.gguf_file.values import Metadata, string
from gguf_forge.tokenizer.checks import vocabulary_size
from gguf_forge.tokenizer.scored_vocabulary import padded, scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_model import read_model
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import TokenizerSource

_FIRST = (b"<unk>", b"<bos>", b"<eos>")
_AFTER_PIECES = (
    b"[MASK]", b"[gMASK]", b"[sMASK]", b"sop", b"eop", b"<|system|>", b"<|user|>", b"<|assistant|>", b"<|observation|>",
)  # fmt: skip


def chatglm3(source: TokenizerSource) -> Metadata | None:
    """The metadata of ChatGLM 3's vocabulary; None without tokenizer.model.

    Raises:
        InputError: a file is broken, or the vocabulary does not fit the model's padded_vocab_size.
    """
    data = source.files.sentencepiece
    if data is None:
        return None
    place = source.files.place("tokenizer.model")
    pieces = read_model(data, place).pieces
    used = len(pieces.texts) + len(_AFTER_PIECES)
    size = vocabulary_size(source.config, source.files.place("config.json"), ("padded_vocab_size",)) or used
    if used > size or len(pieces.texts) < len(_FIRST):
        raise place.error(f"makes a vocabulary of {used} tokens, and the model's padded_vocab_size is {size}")
    for text in _AFTER_PIECES:
        pieces.append(text, 0.0, TokenType.CONTROL)
    pieces.texts[: len(_FIRST)] = _FIRST
    vocabulary = padded(pieces, size)
    vocabulary.scores[used:] = [0.0] * (size - used)
    return {
        **scored_vocabulary(vocabulary),
        "tokenizer.ggml.pre": string("chatglm-spm"),
        **special_tokens(source.files, vocabulary_size=size),
    }
