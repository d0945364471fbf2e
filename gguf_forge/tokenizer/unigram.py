"""Unigram vocabularies (llama.cpp's model `t5`): a SentencePiece model, or the Unigram part of tokenizer.json.

Source: T5's `set_vocab` and `_xlmroberta_set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata, ValueType, array, boolean
from gguf_forge.tokenizer.added_pieces import add_in_range, from_added_tokens
from gguf_forge.tokenizer.added_tokens import text_of
from gguf_forge.tokenizer.auto_tokenizer import settled_tokens
from gguf_forge.tokenizer.checks import (
    MAX_TOKENS,
    Place,
    as_flag,
    as_id,
    as_list,
    as_mapping,
    as_number,
    as_text,
    vocabulary_size,
)
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.scored_vocabulary import padded, scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_model import Algorithm, Pieces, SentencePieceModel, read_model
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.spm import sentencepiece
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import Reader, TokenizerSource, add_space_prefix, token_type_count

# The first tokens of XLM-RoBERTa. Its SentencePiece model has them in another order and without the padding token.
_XLM_ROBERTA_STARTS = {
    b"<s>": TokenType.CONTROL,
    b"<pad>": TokenType.CONTROL,
    b"</s>": TokenType.CONTROL,
    b"<unk>": TokenType.UNKNOWN,
}
_NOMIC_MASK = 250001


def t5(source: TokenizerSource) -> Metadata | None:
    """T5's reading of tokenizer.model or spiece.model; None without either.

    Some models of this family have a BPE tokenizer.model, which is read like that of other families.

    Raises:
        InputError: a file is broken, has another kind of tokenizer, or has more tokens than the model's vocab_size.
    """
    name = "spiece.model" if source.files.sentencepiece is None else "tokenizer.model"
    data = source.files.content(name)
    if data is None:
        return None
    place = source.files.place(name)
    model = read_model(data, place)
    if model.algorithm is Algorithm.BPE and name == "tokenizer.model":
        return sentencepiece(source)
    _check_unigram(model, place)
    pieces = model.pieces
    size = _configured_size(source) or len(pieces.texts)
    if len(pieces.texts) > size:
        raise place.error(
            f"has {len(pieces.texts)} tokens, and the model's vocab_size is {size}",
            "correct vocab_size in config.json, or take the tokenizer that the model was trained with",
        )
    model.pieces = padded(pieces, size)
    add_in_range(model.pieces, from_added_tokens(source.files))
    return _metadata(source, model)


def xlm_roberta(source: TokenizerSource) -> Metadata | None:
    """XLM-RoBERTa's reading of sentencepiece.bpe.model or tokenizer.json, with the number of token types.

    None if the folder has neither file.

    Raises:
        InputError: a file is broken or has another kind of tokenizer.
    """
    return _xlm_roberta(source, None)


def nomic_bert_moe(source: TokenizerSource) -> Metadata | None:
    """Like `xlm_roberta`, with the mask token added, which Nomic's SentencePiece model lacks."""
    return _xlm_roberta(source, _NOMIC_MASK)


def _xlm_roberta(source: TokenizerSource, mask: int | None) -> Metadata | None:
    data = source.files.content("sentencepiece.bpe.model")
    place = source.files.place("sentencepiece.bpe.model")
    model = _from_tokenizer(source) if data is None else read_model(data, place)
    if model is None:
        return None
    _check_unigram(model, place)
    model.pieces = padded(model.pieces, max(_configured_size(source) or 0, len(model.pieces.texts)))
    if data is not None:
        model.pieces = _realigned(model.pieces)
        if mask is not None:
            _set_mask(model.pieces, mask, place)
    return _metadata(source, model, token_type_count)


def _check_unigram(model: SentencePieceModel, place: Place) -> None:
    if model.algorithm is not Algorithm.UNIGRAM:
        hint = "this model needs a Unigram tokenizer: take the one that it was trained with"
        raise place.error(f"is a {model.algorithm.name} tokenizer", hint)


def _configured_size(source: TokenizerSource) -> int | None:
    return vocabulary_size(source.config, source.files.place("config.json"))


def _realigned(pieces: Pieces) -> Pieces:
    """The pieces in the order of XLM-RoBERTa's embeddings. Source: `XLMRobertaTokenizer` of transformers."""
    starts = _XLM_ROBERTA_STARTS
    return Pieces(
        [*starts, *pieces.texts[3:-1]],
        [0.0] * len(starts) + pieces.scores[3:-1],
        [*starts.values(), *pieces.types[3:-1]],
    )


def _set_mask(pieces: Pieces, mask: int, place: Place) -> None:
    if mask >= len(pieces.texts):
        raise place.error(f"makes a vocabulary of {len(pieces.texts)} tokens, and <mask> is token {mask}")
    pieces.texts[mask], pieces.scores[mask], pieces.types[mask] = b"<mask>", 0.0, TokenType.CONTROL


def _metadata(source: TokenizerSource, model: SentencePieceModel, *between: Reader) -> Metadata:
    metadata = scored_vocabulary(model.pieces, "t5") | (add_space_prefix(model.add_dummy_prefix)(source) or {})
    for reader in between:
        metadata |= reader(source) or {}
    metadata["tokenizer.ggml.remove_extra_whitespaces"] = boolean(model.remove_extra_whitespaces)
    if model.charsmap:
        metadata["tokenizer.ggml.precompiled_charsmap"] = array(ValueType.UINT8, model.charsmap)
    return metadata | special_tokens(source.files, vocabulary_size=len(model.pieces.texts))


def _from_tokenizer(source: TokenizerSource) -> SentencePieceModel | None:
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
    """The compiled table of character replacements, which is the whole normalizer or one of its steps."""
    whole = as_mapping(normalizer, place)
    steps = as_list(whole.get("normalizers"), place) if whole.get("type") == "Sequence" else [whole]
    for step in steps:
        fields = as_mapping(step, place)
        if fields.get("type") == "Precompiled":
            here = place / "precompiled_charsmap"
            try:
                return base64.b64decode(as_text(fields.get("precompiled_charsmap"), here), validate=True)
            except ValueError as error:
                raise here.error(f"is not base64 ({error})", "download the file again") from error
    raise InputError(
        "the normalizer has no precompiled character map, and llama.cpp knows no other way to normalize for Unigram",
        file=place.file,
        hint="put the model's sentencepiece.bpe.model beside it, if there is one",
    )
