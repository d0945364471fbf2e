"""Unigram vocabularies (llama.cpp's model `t5`): a SentencePiece model, or the Unigram part of tokenizer.json.

Source: T5's `set_vocab` and `_xlmroberta_set_vocab` in llama.cpp's converter; llama.cpp's `llm_tokenizer_ugm`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata, ValueType, array, boolean
from gguf_forge.tokenizer.added_tokens import text_of
from gguf_forge.tokenizer.auto_tokenizer import settled_tokens
from gguf_forge.tokenizer.checks import MAX_TOKENS, Place, as_flag, as_id, as_list, as_mapping, as_number, as_text
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.scored_vocabulary import scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_json import is_about_spaces
from gguf_forge.tokenizer.sentencepiece_model import Pieces, SentencePieceModel
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import Reader, TokenizerSource, add_space_prefix


def unigram_metadata(source: TokenizerSource, model: SentencePieceModel, *between: Reader) -> Metadata:
    """The metadata of a vocabulary of the model `t5`. The keys of `between` come before those of its normalizer."""
    metadata = scored_vocabulary(model.pieces, "t5") | (add_space_prefix(model.add_dummy_prefix)(source) or {})
    for reader in between:
        metadata |= reader(source) or {}
    metadata["tokenizer.ggml.remove_extra_whitespaces"] = boolean(model.remove_extra_whitespaces)
    if model.charsmap:
        metadata["tokenizer.ggml.precompiled_charsmap"] = array(ValueType.UINT8, model.charsmap)
    return metadata | special_tokens(source.files, vocabulary_size=len(model.pieces.texts))


def from_tokenizer_json(source: TokenizerSource) -> SentencePieceModel | None:
    """The pieces and settings of a Unigram tokenizer.json; None if it has no Unigram tokenizer."""
    files = source.files
    place = files.place("tokenizer.json")
    tokenizer = files.tokenizer or {}
    part = tokenizer.get("model")
    if not isinstance(part, dict) or part.get("type") != "Unigram":
        return None
    settings = files.tokenizer_config or {}
    config_place = files.place("tokenizer_config.json")

    def flag(name: str) -> bool:
        return as_flag(settings.get(name, False), config_place / name)

    return SentencePieceModel(
        pieces=_pieces(files, part, place / "model"),
        charsmap=_charsmap(tokenizer.get("normalizer"), place / "normalizer"),
        add_dummy_prefix=flag("add_prefix_space"),
        remove_extra_whitespaces=flag("clean_up_tokenization_spaces"),
    )


def _pieces(files: TokenizerFiles, model: Mapping[str, Any], place: Place) -> Pieces:
    listed = as_list(model.get("vocab"), place / "vocab")
    if not 0 < len(listed) <= MAX_TOKENS:
        raise (place / "vocab").error(f"must have from 1 to {MAX_TOKENS} tokens, not {len(listed)}")
    pieces = Pieces()
    for id, entry in enumerate(listed):
        here = place / "vocab" / id
        if not isinstance(entry, list) or len(entry) != 2:
            raise here.expected("a token and its score", entry)
        pieces.append(as_text(entry[0], here).encode(), as_number(entry[1], here), TokenType.NORMAL)
    _set_types(files, pieces, model.get("unk_id", 3), place / "unk_id")
    return pieces


def _set_types(files: TokenizerFiles, pieces: Pieces, unknown: Any, place: Place) -> None:
    ids = {text: id for id, text in enumerate(pieces.texts)}
    added, special = ([ids[text] for text in texts if text in ids] for texts in _added_and_special(files))
    for id in added:
        pieces.types[id] = TokenType.USER_DEFINED
    for id in special:
        pieces.types[id] = TokenType.CONTROL
    named = (files.tokenizer_config or {}).get("unk_token")
    named_id = ids.get(named.encode()) if isinstance(named, str) else None
    if named_id in added:
        unknown = named_id
    if unknown is not None and as_id(unknown, place) < len(pieces.types):
        pieces.types[unknown] = TokenType.UNKNOWN


def _added_and_special(files: TokenizerFiles) -> tuple[set[bytes], set[bytes]]:
    """The texts of a tokenizer's added tokens, and the texts of its special tokens."""
    added, special = settled_tokens(files)
    special_texts = {text_of(token).encode() for token in special}
    return {token.content.encode() for token in added} | special_texts, special_texts


def _charsmap(normalizer: Any, place: Place) -> bytes:
    """The compiled table of character replacements, which is the whole normalizer or one of its steps.

    It is empty for a normalizer that only replaces or adds spaces, because a Unigram vocabulary does so anyway.
    """
    whole = as_mapping(normalizer or {"type": "Sequence", "normalizers": []}, place)
    steps = as_list(whole.get("normalizers"), place) if whole.get("type") == "Sequence" else [whole]
    for step in steps:
        fields = as_mapping(step, place)
        if fields.get("type") == "Precompiled":
            here = place / "precompiled_charsmap"
            try:
                return base64.b64decode(as_text(fields.get("precompiled_charsmap"), here), validate=True)
            except ValueError as error:
                raise here.error(f"is not base64 ({error})", "download the file again") from error
    if all(is_about_spaces(step) for step in steps):
        return b""
    raise InputError(
        "the normalizer has no precompiled character map, and llama.cpp knows no other way to normalize for Unigram",
        file=place.file,
        hint="put the model's sentencepiece.bpe.model beside it, if there is one",
    )
