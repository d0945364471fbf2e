from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece_models import field, piece, trained, varint
from synthetic import small_files

from gguf_forge.errors import InputError
from gguf_forge.tokenizer.checks import Place
from gguf_forge.tokenizer.sentencepiece_model import Algorithm, Pieces, SentencePieceModel, read_model
from gguf_forge.tokenizer.token_types import TokenType

PLACE = Place("tokenizer.model")
MODELS = ("gemma", "llama2-spm", "mistral", "phi3")


def read_pieces(data: bytes, place: Place) -> Pieces:
    return read_model(data, place).pieces


UNKNOWN = piece(b"<unk>", kind=2)


@pytest.mark.parametrize("family", MODELS)
def test_the_pieces_are_those_of_the_library(family: str) -> None:
    from sentencepiece import SentencePieceProcessor

    data = small_files(family)[Path("tokenizer.model")].read_bytes()
    library = SentencePieceProcessor(model_proto=data)
    ids = range(library.vocab_size())
    pieces = read_pieces(data, PLACE)
    assert pieces.texts == [library.IdToPiece(id).encode() for id in ids]
    assert pieces.scores == [library.GetScore(id) for id in ids]
    for kind, ask in {
        TokenType.UNKNOWN: library.IsUnknown,
        TokenType.CONTROL: library.IsControl,
        TokenType.UNUSED: library.IsUnused,
        TokenType.BYTE: library.IsByte,
    }.items():
        assert [id for id in ids if pieces.types[id] is kind] == [id for id in ids if ask(id)]


def test_defaults_and_unknown_fields() -> None:
    extra = field(0x22, b"self test") + b"\x20\x96\x01" + b"\x29" + bytes(8)
    pieces = read_pieces(UNKNOWN + extra + field(0x0A, field(0x0A, "▁é".encode()) + b"\x22\x01x"), PLACE)
    assert pieces.texts == [b"<unk>", "▁é".encode()]
    assert pieces.scores == [0.0, 0.0]
    assert pieces.types == [TokenType.UNKNOWN, TokenType.NORMAL]


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("flag", [True, False])
def test_the_settings_are_those_that_the_library_trained_with(algorithm: Algorithm, flag: bool) -> None:
    data = trained(
        algorithm.name.lower(),
        add_dummy_prefix=flag,
        remove_extra_whitespaces=not flag,
        normalization_rule_name="nmt_nfkc" if flag else "identity",
    )
    model = read_model(data, PLACE)
    assert model.algorithm is algorithm
    assert (model.add_dummy_prefix, model.remove_extra_whitespaces) == (flag, not flag)
    assert len(model.charsmap) > 100_000 if flag else model.charsmap == b""


def test_settings_that_the_file_leaves_out() -> None:
    assert read_model(UNKNOWN, PLACE) == SentencePieceModel(Pieces([b"<unk>"], [0.0], [TokenType.UNKNOWN]))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no pieces"),
        (UNKNOWN + field(0x12, b"\x18\x09"), "9 is not a valid Algorithm"),
        (UNKNOWN + field(0x1A, b"\x12\x7f"), "past its end"),
        (UNKNOWN + field(0x1A, b"\x1b"), "wire type 3"),
        (piece(b"a"), "0 pieces for unknown text"),
        (UNKNOWN + piece(b"<u>", kind=2), "2 pieces for unknown text"),
        (UNKNOWN + piece(b""), "empty piece, number 1"),
        (UNKNOWN + piece(b"a") + piece(b"a"), "'a' twice"),
        (UNKNOWN + piece(b"\xff\xfe"), "not UTF-8"),
        (UNKNOWN + piece(b"a", kind=9), "not a readable"),
        (UNKNOWN + b"\x0b", "wire type 3"),
        (UNKNOWN + b"\x08\x01", "a piece of wire type 0"),
        (UNKNOWN + b"\x0a" + varint(1 << 62) + b"x", "past its end"),
        (UNKNOWN + b"\x0a" + b"\xff" * 20, "more than 64 bits"),
        (UNKNOWN + field(0x0A, field(0x0A, b"abc")[:-1]), "past its end"),
        (b'{"model": {}}', "not a readable"),
    ],
)
def test_a_broken_model_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_pieces(data, PLACE)


@given(st.integers(1, 4000))
def test_a_truncated_model_gives_its_first_pieces_or_an_error(length: int) -> None:
    data = small_files("llama2-spm")[Path("tokenizer.model")].read_bytes()
    whole = read_pieces(data, PLACE)
    try:
        cut = read_pieces(data[:length], PLACE)
    except InputError:
        return
    assert cut.texts == whole.texts[: len(cut.texts)]


@given(st.binary(max_size=200), st.binary(max_size=30))
def test_no_bytes_get_past_the_checks(before: bytes, after: bytes) -> None:
    for data in (before, UNKNOWN + before, before + UNKNOWN + after):
        try:
            pieces = read_pieces(data, PLACE)
        except InputError:
            continue
        assert len(pieces.texts) == len(pieces.scores) == len(pieces.types) > 0
