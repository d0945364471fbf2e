"""Vocabularies of SentencePiece models: tokenizer.model, and the tokens that JSON files add to it.

A folder without tokenizer.model may have all that it says in tokenizer.json.

Source: `_create_vocab_sentencepiece` and Phi-3's `set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.errors import UnsupportedError
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer.added_pieces import (
    add_in_range,
    from_added_tokens,
    from_tokenizer,
    from_tokenizer_config,
    put,
)
from gguf_forge.tokenizer.causal_unigram import causal_unigram, unigram_json
from gguf_forge.tokenizer.checks import vocabulary_size
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.llama_hf import llama_hf
from gguf_forge.tokenizer.scored_vocabulary import padded, scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_json import is_sentencepiece_bpe
from gguf_forge.tokenizer.sentencepiece_model import Algorithm, Pieces, SentencePieceModel, read_model
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.vocabulary import TokenizerSource
from gguf_forge.wording import log_of

log = log_of(__name__)


def sentencepiece(source: TokenizerSource) -> Metadata | None:
    """The metadata of a SentencePiece vocabulary: tokenizer.model, or else the tokenizer.json that was made of it.

    None if the folder has neither, or a tokenizer.json of another kind.

    The vocabulary gets the size in the configuration: missing tokens become `[PADn]`, tokens beyond it are left out.
    """
    return _sentencepiece(source, _size_key(source))


def gemma3n_sentencepiece(source: TokenizerSource) -> Metadata | None:
    """Like `sentencepiece`, but the size is always vocab_size, which is larger in models that see and hear."""
    return _sentencepiece(source, "vocab_size")


def _sentencepiece(source: TokenizerSource, size_key: str) -> Metadata | None:
    model = _model(source.files)
    if model is None:
        return None if source.files.as_reference else llama_hf(source) or unigram_json(source)
    size = _size(source, model.pieces, size_key)
    if len(model.pieces.texts) > size:
        log.warning("tokenizer.model has %d tokens; those from %d on are left out", len(model.pieces.texts), size)
    vocabulary = padded(model.pieces, size)
    add_in_range(vocabulary, (*from_added_tokens(source.files), *from_tokenizer_config(source.files)))
    return _metadata(source, model, vocabulary)


def phi3(source: TokenizerSource) -> Metadata | None:
    """Phi-3's reading of a SentencePiece vocabulary; None without tokenizer.model.

    Added tokens are user-defined unless they are marked as special, whatever their text. Some are in tokenizer.json.
    """
    model = _model(source.files)
    if model is None:
        return None
    pieces = model.pieces
    size = _size(source, pieces, "vocab_size")
    if len(pieces.texts) > size:
        raise source.files.place("tokenizer.model").error(
            f"has {len(pieces.texts)} tokens, and the model's vocab_size is {size}",
            "correct vocab_size in config.json, or take the tokenizer that the model was trained with",
        )
    vocabulary = padded(pieces, size)
    add_in_range(vocabulary, from_added_tokens(source.files))
    for token in (*from_tokenizer_config(source.files, by_text=False), *from_tokenizer(source.files)):
        if token.id >= size:
            raise token.place.error(f"is token {token.id}, and the model's vocab_size is {size}")
        put(vocabulary, token)
    return _metadata(source, model, vocabulary)


def sentencepiece_size(source: TokenizerSource) -> int | None:
    """The number of tokens that `sentencepiece` writes; None without tokenizer.model.

    Without it the number is known if the configuration says it, and tokenizer.json has the same vocabulary.
    """
    model = _model(source.files)
    if model is not None:
        return _size(source, model.pieces, _size_key(source))
    if source.files.as_reference or not is_sentencepiece_bpe(source.files):
        return None
    return vocabulary_size(source.config, source.files.place("config.json"))


def _model(files: TokenizerFiles) -> SentencePieceModel | None:
    data = files.sentencepiece
    return None if data is None else read_model(data, files.place("tokenizer.model"))


def _size_key(source: TokenizerSource) -> str:
    """The config key of the vocabulary's size: the one for embeddings of each layer, if the model has these."""
    per_layer = "vocab_size_per_layer_input"
    return per_layer if source.config.get(per_layer) else "vocab_size"


def _size(source: TokenizerSource, pieces: Pieces, key: str) -> int:
    return vocabulary_size(source.config, source.files.place("config.json"), (key,)) or len(pieces.texts)


def _metadata(source: TokenizerSource, model: SentencePieceModel, vocabulary: Pieces) -> Metadata:
    if not source.files.as_reference:
        if model.algorithm is Algorithm.UNIGRAM:
            return causal_unigram(source, replace(model, pieces=vocabulary))
        if model.algorithm is Algorithm.WORD:
            raise UnsupportedError(
                "the SentencePiece model is of the kind WORD, and llama.cpp has nothing that splits text so",
                file=source.files.place("tokenizer.model").file,
            )
    return {
        **scored_vocabulary(vocabulary),
        **special_tokens(source.files, vocabulary_size=len(vocabulary.texts)),
    }
