"""The readers of families whose vocabularies are always Unigram: T5 and XLM-RoBERTa.

Source: T5's `set_vocab` and `_xlmroberta_set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer.added_pieces import add_in_range, from_added_tokens
from gguf_forge.tokenizer.checks import Place, vocabulary_size
from gguf_forge.tokenizer.scored_vocabulary import padded
from gguf_forge.tokenizer.sentencepiece_model import Algorithm, Pieces, SentencePieceModel, read_model
from gguf_forge.tokenizer.spm import sentencepiece
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.unigram_vocabulary import from_tokenizer_json, unigram_metadata
from gguf_forge.tokenizer.vocabulary import TokenizerSource, token_type_count

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
    check_unigram(model, place)
    pieces = model.pieces
    size = _configured_size(source) or len(pieces.texts)
    if len(pieces.texts) > size:
        raise place.error(
            f"has {len(pieces.texts)} tokens, and the model's vocab_size is {size}",
            "correct vocab_size in config.json, or take the tokenizer that the model was trained with",
        )
    model.pieces = padded(pieces, size)
    add_in_range(model.pieces, from_added_tokens(source.files))
    return unigram_metadata(source, model)


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
    model = from_tokenizer_json(source) if data is None else read_model(data, place)
    if model is None:
        return None
    check_unigram(model, place)
    model.pieces = padded(model.pieces, max(_configured_size(source) or 0, len(model.pieces.texts)))
    if data is not None:
        model.pieces = _realigned(model.pieces)
        if mask is not None:
            _set_mask(model.pieces, mask, place)
    return unigram_metadata(source, model, token_type_count)


def check_unigram(model: SentencePieceModel, place: Place) -> None:
    """Raises InputError for a model of another kind."""
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
