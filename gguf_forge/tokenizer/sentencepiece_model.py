"""Reads the pieces of a SentencePiece model, with bounds checked before every step.

A model is one protobuf message; a vocabulary needs only its field 1, the pieces. A parser of that field is
safer on hostile files, and faster, than asking the sentencepiece library for each piece.
Source: sentencepiece's `sentencepiece_model.proto`, and the checks of its `ModelInterface`.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass

from gguf_forge.errors import InputError
from gguf_forge.tokenizer.checks import MAX_TOKENS, Place
from gguf_forge.tokenizer.token_types import TokenType

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_F32 = struct.Struct("<f")
_HINT = "the file may be truncated or of another kind: download it again"


@dataclass(frozen=True)
class Pieces:
    """A vocabulary; the index is the token id. GGUF's token types have the numbers of SentencePiece's."""

    texts: list[bytes]
    scores: list[float]
    types: list[TokenType]


def read_pieces(data: bytes, place: Place) -> Pieces:
    """The pieces of a SentencePiece model.

    Raises:
        InputError: the data is no such model, is cut off, or its pieces contradict each other.
    """
    try:
        pieces = _parse(data)
    except (IndexError, ValueError, struct.error) as error:
        raise place.error(f"is not a readable SentencePiece model ({error})", _HINT) from error
    _check(pieces, place)
    return pieces


def _parse(data: bytes) -> Pieces:
    pieces = Pieces([], [], [])
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        start, position = _payload(data, position, tag, end)
        if tag >> 3 == 1:
            if tag & 7 != _BYTES:
                raise ValueError(f"byte {start}: a piece of wire type {tag & 7}")
            if len(pieces.texts) == MAX_TOKENS:
                raise ValueError(f"more than {MAX_TOKENS} pieces")
            text, score, kind = _piece(data, start, position)
            pieces.texts.append(text)
            pieces.scores.append(score)
            pieces.types.append(kind)
    return pieces


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
