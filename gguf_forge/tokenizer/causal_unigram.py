"""Unigram vocabularies of models that generate text.

llama.cpp's converter writes the SentencePiece model of such a model as one that joins pairs (`llama`). A Unigram model
has words that no joined pairs lead to, and these are never found. llama.cpp splits as Unigram does if the vocabulary is
of the model `t5`. The defaults of its special tokens are then those of T5, so all of them are written here.
"""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.gguf_file.values import Metadata, boolean, u32
from gguf_forge.tokenizer.auto_tokenizer import load_tokenizer
from gguf_forge.tokenizer.checks import vocabulary_size
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.scored_vocabulary import fitted
from gguf_forge.tokenizer.sentencepiece_json import MANY_SPACES, prepends_space, steps_of
from gguf_forge.tokenizer.sentencepiece_model import SentencePieceModel
from gguf_forge.tokenizer.special import ID_KEYS
from gguf_forge.tokenizer.token_types import TokenType, added_token
from gguf_forge.tokenizer.unigram_vocabulary import from_tokenizer_json, unigram_metadata
from gguf_forge.tokenizer.vocabulary import TokenizerSource
from gguf_forge.wording import log_of

log = log_of(__name__)

# The usual texts of special tokens, for files that name none.
_ROLES = {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}
_ADDED = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": False}


def causal_unigram(source: TokenizerSource, model: SentencePieceModel) -> Metadata:
    """The metadata of a Unigram model, with the special tokens that other SentencePiece vocabularies have by default.

    llama.cpp has no bytes for unknown characters in such a vocabulary. A character without a piece is `<unk>` there.
    """
    # Where llama.cpp removes spaces it also puts one before the text.
    merges_spaces = model.remove_extra_whitespaces and model.add_dummy_prefix
    metadata = unigram_metadata(source, replace(model, remove_extra_whitespaces=merges_spaces))
    ids = {text: id for id, text in enumerate(model.pieces.texts)}
    for role, usual in _ROLES.items():
        named = (source.files.tokenizer_config or {}).get(f"{role}_token")
        text = named.get("content") if isinstance(named, dict) else named
        id = ids.get((text if isinstance(text, str) else usual).encode())
        if id is not None:
            metadata.setdefault(ID_KEYS[role], u32(id))
    if TokenType.UNKNOWN in model.pieces.types:
        metadata.setdefault(ID_KEYS["unk"], u32(model.pieces.types.index(TokenType.UNKNOWN)))
    log.warning(
        "%s: the vocabulary is of the Unigram kind: it is written as llama.cpp's model t5, which splits text as it "
        "does; a character without a token becomes <unk>, because llama.cpp has no bytes for it there",
        source.files.folder.path,
    )
    return metadata | {key: boolean(flag) for key, flag in _ADDED.items() if key not in metadata}


def unigram_json(source: TokenizerSource) -> Metadata | None:
    """The metadata of a Unigram tokenizer.json of a model that generates text; None if the folder has no such file.

    Raises:
        InputError: the file is broken, or its normalizer is one that llama.cpp does not have.
    """
    files = source.files
    model = None if files.as_reference else from_tokenizer_json(source)
    if model is None:
        return None
    tokenizer = files.tokenizer or {}
    _append_added(files, model)
    size = vocabulary_size(source.config, files.place("config.json")) or len(model.pieces.texts)
    merges_spaces = any(step.get("pattern") == MANY_SPACES for step in steps_of(tokenizer.get("normalizer")))
    return causal_unigram(
        source,
        replace(
            model,
            pieces=fitted(model.pieces, size, "tokenizer.json"),
            add_dummy_prefix=prepends_space(tokenizer),
            remove_extra_whitespaces=merges_spaces,
        ),
    )


def _append_added(files: TokenizerFiles, model: SentencePieceModel) -> None:
    """Appends the added tokens that are not in the vocabulary itself. Their ids follow those of the vocabulary."""
    tokenizer = load_tokenizer(files)
    for id, token in sorted(tokenizer.added_tokens().items() if tokenizer is not None else ()):
        if id >= len(model.pieces.texts):
            text, kind = added_token(token.content, token.special)
            model.pieces.append(text.encode(), 0.0, kind)
