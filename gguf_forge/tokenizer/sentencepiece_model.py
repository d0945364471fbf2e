"""Reads a SentencePiece model and checks bounds before every step.

A model is one protobuf message. A vocabulary needs only its pieces and a few settings. This parser reads only these,
which is safer on hostile files, and faster, than asking the sentencepiece library for each piece.
Source: sentencepiece's `sentencepiece_model.proto`, and the checks of its `ModelInterface`.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

from gguf_forge.errors import InputError
from gguf_forge.tokenizer.checks import MAX_TOKENS, Place
from gguf_forge.tokenizer.token_types import TokenType

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PIECE, _TRAINER, _NORMALIZER = (number << 3 | _BYTES for number in (1, 2, 3))
_F32 = struct.Struct("<f")
_HINT = "the file may be truncated or of another kind: download it again"


class Algorithm(IntEnum):
    """The training algorithm of a model, which also decides how it splits text. Source: `TrainerSpec.ModelType`."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class Pieces:
    """A vocabulary. The index is the token id. GGUF's token types have the same numbers as SentencePiece's."""

    texts: list[bytes] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[TokenType] = field(default_factory=list)

    def append(self, text: bytes, score: float, kind: TokenType) -> None:
        self.texts.append(text)
        self.scores.append(score)
        self.types.append(kind)


@dataclass
class SentencePieceModel:
    """A model's pieces and settings. The defaults are the values of settings that the file leaves out.

    Attributes:
        pieces: The vocabulary.
        algorithm: How text is split.
        charsmap: The compiled table of character replacements; empty if there is none.
        add_dummy_prefix: Whether a text gets a space before it.
        remove_extra_whitespaces: Whether several spaces become one.
    """

    pieces: Pieces = field(default_factory=Pieces)
    algorithm: Algorithm = Algorithm.UNIGRAM
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True


def read_model(data: bytes, place: Place) -> SentencePieceModel:
    """The pieces and settings of a SentencePiece model.

    Raises:
        InputError: the data is not a SentencePiece model, is cut off, or its pieces contradict each other.
    """
    try:
        model = _parse(data)
    except (IndexError, ValueError, struct.error) as error:
        raise place.error(f"is not a readable SentencePiece model ({error})", _HINT) from error
    _check(model.pieces, place)
    return model


def _parse(data: bytes) -> SentencePieceModel:
    model = SentencePieceModel()
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        start, position = _payload(data, position, tag, end)
        if tag >> 3 == _PIECE >> 3 and tag != _PIECE:
            raise ValueError(f"byte {start}: a piece of wire type {tag & 7}")
        if tag == _PIECE:
            if len(model.pieces.texts) == MAX_TOKENS:
                raise ValueError(f"more than {MAX_TOKENS} pieces")
            model.pieces.append(*_piece(data, start, position))
        elif tag == _TRAINER:
            _read_trainer(model, data, start, position)
        elif tag == _NORMALIZER:
            _read_normalizer(model, data, start, position)
    return model


def _read_trainer(model: SentencePieceModel, data: bytes, position: int, end: int) -> None:
    while position < end:
        tag, position = _varint(data, position)
        start, position = _payload(data, position, tag, end)
        if tag == 3 << 3 | _VARINT:
            model.algorithm = Algorithm(_varint(data, start)[0])


def _read_normalizer(model: SentencePieceModel, data: bytes, position: int, end: int) -> None:
    while position < end:
        tag, position = _varint(data, position)
        start, position = _payload(data, position, tag, end)
        if tag == 2 << 3 | _BYTES:
            model.charsmap = data[start:position]
        elif tag == 3 << 3 | _VARINT:
            model.add_dummy_prefix = bool(_varint(data, start)[0])
        elif tag == 4 << 3 | _VARINT:
            model.remove_extra_whitespaces = bool(_varint(data, start)[0])


def _piece(data: bytes, position: int, end: int) -> tuple[bytes, float, TokenType]:
    text, score, kind = b"", 0.0, TokenType.NORMAL
    while position < end:
        tag, position = _varint(data, position)
        start, position = _payload(data, position, tag, end)
        if tag == 1 << 3 | _BYTES:
            text = data[start:position]
        elif tag == 2 << 3 | _FIXED32:
            (score,) = _F32.unpack_from(data, start)
        elif tag == 3 << 3 | _VARINT:
            kind = TokenType(_varint(data, start)[0])
    return text, score, kind


def _payload(data: bytes, position: int, tag: int, end: int) -> tuple[int, int]:
    """Where the payload of a field starts and ends; never past `end`."""
    wire = tag & 7
    start = position
    if wire == _VARINT:
        _, stop = _varint(data, position)
    elif wire == _BYTES:
        length, start = _varint(data, position)
        stop = start + length
    elif wire == _FIXED32:
        stop = position + 4
    elif wire == _FIXED64:
        stop = position + 8
    else:
        raise ValueError(f"byte {position}: wire type {wire}")
    if stop > end:
        raise ValueError(f"byte {position}: a field runs {stop - end} bytes past its end")
    return start, stop


def _varint(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    position += 1
    if byte < 0x80:
        return byte, position
    value, shift = byte & 0x7F, 7
    while shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"byte {position}: a number of more than 64 bits")


def _check(pieces: Pieces, place: Place) -> None:
    problem = None
    if not pieces.texts:
        problem = "has no pieces"
    elif b"" in pieces.texts:
        problem = f"has an empty piece, number {pieces.texts.index(b'')}"
    elif len(set(pieces.texts)) != len(pieces.texts):
        twice = next(text for text, count in Counter(pieces.texts).items() if count > 1)
        problem = f"has the piece {twice.decode(errors='replace')!r} twice"
    elif (unknown := pieces.types.count(TokenType.UNKNOWN)) != 1:
        problem = f"has {unknown} pieces for unknown text instead of one"
    else:
        try:
            b"\n".join(pieces.texts).decode()
        except UnicodeDecodeError as error:
            problem = f"has a piece that is not UTF-8: {error.object[error.start - 8 : error.end + 8]!r}"
    if problem is not None:
        raise InputError(f"the SentencePiece model {problem}", file=place.file, hint=_HINT)
