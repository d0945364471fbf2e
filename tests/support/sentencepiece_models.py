"""SentencePiece models for tests: put together by hand from the fields of the format, or trained by the library."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import Any


def trained(model_type: str, lines: Sequence[str] = ("a b c a b",) * 9, **settings: Any) -> bytes:
    """A small model of the library's; pieces `<unk>`, `<s>`, `</s>`, then what the settings ask for."""
    from sentencepiece import SentencePieceTrainer

    file = BytesIO()
    whole = {"model_type": model_type, "vocab_size": 8, "hard_vocab_limit": False, "minloglevel": 2, **settings}
    SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=file, **whole)
    return file.getvalue()


def field(tag: int, payload: bytes) -> bytes:
    return bytes([tag]) + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def piece(text: bytes, score: float = 0.0, kind: int | None = None) -> bytes:
    return field(
        0x0A, field(0x0A, text) + b"\x15" + struct.pack("<f", score) + (b"" if kind is None else bytes([0x18, kind]))
    )
