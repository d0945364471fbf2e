"""InternLM's readings of tokenizer.model.

Source: `set_vocab` of `InternLM2Model` and `InternLM3Model` in llama.cpp's converter.
"""

from __future__ import annotations

from gguf_forge.gguf_file.values import Metadata, boolean, u32
from gguf_forge.tokenizer.added_pieces import ADDED_SCORE, from_added_tokens, from_tokenizer, from_tokenizer_config, put
from gguf_forge.tokenizer.checks import vocabulary_size
from gguf_forge.tokenizer.scored_vocabulary import padded, scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_model import read_model
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.spm import sentencepiece
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import TokenizerSource, configured_space_prefix

# The token that ends a turn in the chat models.
_CHAT_END = "<|im_end|>"
_PER_TOKEN = tuple(f"tokenizer.ggml.{name}" for name in ("model", "pre", "tokens", "scores", "token_type"))


def internlm2(source: TokenizerSource) -> Metadata | None:
    """The metadata of InternLM2's vocabulary; None without tokenizer.model.

    A zero byte is written as another character, because it would end a C string. In chat models the token that ends a
    turn is also the end of sequence.

    Raises:
        InputError: a file is broken, or the vocabulary does not fit the model's vocab_size.
    """
    data = source.files.sentencepiece
    if data is None:
        return None
    place = source.files.place("tokenizer.model")
    model = read_model(data, place)
    size = vocabulary_size(source.config, source.files.place("config.json")) or len(model.pieces.texts)
    if size > len(model.pieces.texts):
        raise place.error(f"has {len(model.pieces.texts)} tokens, and the model's vocab_size is {size}")
    pieces = padded(model.pieces, size)
    for id, text in enumerate(pieces.texts):
        if text == b"\0":
            pieces.texts[id] = "\N{DRAGON}".encode()
        if text.startswith(b"[UNUSED"):
            pieces.types[id] = TokenType.UNUSED
    for token in from_added_tokens(source.files):
        pieces.append(token.text.encode(), ADDED_SCORE, TokenType.USER_DEFINED)
    ends = {}
    for token in (*from_tokenizer_config(source.files, by_text=False), *from_tokenizer(source.files)):
        if token.id >= len(pieces.texts):
            raise token.place.error(f"is token {token.id}, and the vocabulary has {len(pieces.texts)}")
        put(pieces, token)
        if token.text == _CHAT_END:
            ends["eos"] = token.id
    return {
        **scored_vocabulary(pieces),
        "tokenizer.ggml.add_space_prefix": boolean(model.add_dummy_prefix),
        **special_tokens(source.files, vocabulary_size=len(pieces.texts), overrides=ends),
    }


def internlm3(source: TokenizerSource) -> Metadata | None:
    """The metadata of InternLM3's vocabulary: like `sentencepiece`, but chat models end with their end of turn."""
    metadata = sentencepiece(source)
    if metadata is None:
        return None
    eos = "tokenizer.ggml.eos_token_id"
    listed = from_tokenizer_config(source.files, by_text=False)
    ends = [token.id for token in listed if token.text == _CHAT_END and token.type is TokenType.CONTROL]
    vocabulary = {key: metadata.pop(key) for key in _PER_TOKEN}
    if ends and eos in metadata:
        metadata[eos] = u32(ends[-1])
    return {**vocabulary, **configured_space_prefix(source), **metadata}
