"""The lenient reader: what it takes, what it says of it, and that it is as safe as the strict one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from broken_gguf import BROKEN, DATA, UNSUPPORTED
from gguf_headers import HEADERS
from hypothesis import given
from raw_gguf import ARRAY, STRING, U8, U32, RawTensor, key, raw_gguf, text, u32_key, write

from gguf_forge.errors import ForgeError, InputError, UnsupportedError
from gguf_forge.gguf_file import cursor
from gguf_forge.gguf_file.header import encode_header
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.opened import open_gguf
from gguf_forge.gguf_file.rules import WIDEST, FormatRule
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata

# The files of the strict reader's tests that can be read all the same, and the rules that they break.
READABLE = {
    "empty key": [FormatRule.EMPTY_KEY],
    "duplicate key": [FormatRule.KEY_TWICE],
    "array of arrays": [FormatRule.NESTED],
    "alignment of 2^20": [FormatRule.CUT],
    "alignment other than the padding": [FormatRule.OFFSET],
    "tensor name of 64 bytes": [FormatRule.NAME],
    "five dimensions": [FormatRule.DIMS],
    "bytes beyond 2^64": [FormatRule.CUT],
    "bytes whose padding wraps": [FormatRule.CUT],
    "sum of sizes wraps": [FormatRule.CUT],
    "row of no whole blocks": [FormatRule.TYPE],
    "offset in the header": [FormatRule.OFFSET, FormatRule.CUT],
    "offset not aligned": [FormatRule.OFFSET, FormatRule.CUT],
    "overlap": [FormatRule.OFFSET],
    "gap": [FormatRule.OFFSET],
    "data cut short": [FormatRule.CUT],
    "no data at all": [FormatRule.CUT],
    **{
        attack: [FormatRule.HEADER]
        for attack, (_, message) in BROKEN.items()
        if "fit" in message or attack == "more dimensions than there are"
    },
    **{attack: [FormatRule.TYPE] for attack in UNSUPPORTED if "type" in attack},
}


@pytest.mark.parametrize("attack", [*BROKEN, *UNSUPPORTED])
def test_what_is_not_refused_is_said_to_be_broken(attack: str, tmp_path: Path) -> None:
    raw, _ = {**BROKEN, **UNSUPPORTED}[attack]
    path = write(tmp_path, raw)
    if attack not in READABLE:
        with pytest.raises(ForgeError) as caught:
            open_gguf(path, lenient=True)
        assert caught.value.file == path
        return
    with open_gguf(path, lenient=True) as opened:
        assert [each.rule for each in opened.broken] == READABLE[attack]
        for tensor in opened.tensors:
            if tensor.is_whole:
                assert len(tensor.data()) == tensor.nbytes
            else:
                with pytest.raises(InputError, match="ends before the tensor does"):
                    tensor.expression()


@given(HEADERS[0], HEADERS[1])
def test_lawful_files_are_read_as_the_strict_reader_reads_them(
    tmp_path_factory: pytest.TempPathFactory, metadata: Metadata, infos: list[TensorInfo]
) -> None:
    metadata = {name: value for name, value in metadata.items() if name and name != "general.alignment"}
    infos = [info for info in infos if "\0" not in info.name]
    layout = lay_out(metadata, infos)
    path = write(tmp_path_factory.mktemp("headers"), layout.header.ljust(layout.size, b"\0"))
    with open_gguf(path) as strict, open_gguf(path, lenient=True) as lenient:
        assert not lenient.broken
        assert [(t.info, t.offset) for t in lenient.tensors] == [(t.info, t.offset) for t in strict.tensors]
        assert lenient.metadata.keys() == strict.metadata.keys()


def test_the_size_of_an_unknown_type_is_the_distance_to_the_next_tensor(tmp_path: Path) -> None:
    tensors = [RawTensor(b"a", (256, 2), 153), RawTensor(b"b", offset=96), RawTensor(b"c", (7,), 200, 224)]
    with open_gguf(write(tmp_path, raw_gguf([], tensors, bytes(240))), lenient=True) as opened:
        assert [(t.type.name, t.nbytes) for t in opened.tensors] == [("type 153", 96), ("F32", 128), ("type 200", 16)]
        assert opened.broken[0].names == ("a", "c")
        with pytest.raises(UnsupportedError, match="type 153 is not known"):
            opened.tensors[0].expression()
    with pytest.raises(UnsupportedError, match="type 153 is not known; so it is with 1 more: c"):
        open_gguf(tmp_path / "a.gguf")


@pytest.mark.parametrize("rows", [1, 3])
def test_a_number_that_a_fork_uses_for_another_type_is_no_known_type(rows: int, tmp_path: Path) -> None:
    tensors = [RawTensor(b"a", (64, rows), 42), RawTensor(b"b", offset=64)]  # 18 or 54 bytes of Q2_0, padded
    path = write(tmp_path, raw_gguf([], tensors, bytes(192)))
    with open_gguf(path, lenient=True) as opened:
        expected = ("type 42", 64) if rows == 1 else ("Q2_0", 54)
        assert (opened.tensors[0].type.name, opened.tensors[0].nbytes) == expected
    if rows == 1:
        with pytest.raises(InputError, match=r"a fork of llama\.cpp may use number 42"):
            open_gguf(path)


def test_tensors_without_bytes_take_no_bytes_of_others(tmp_path: Path) -> None:
    tensors = [RawTensor(b"a", (0,), 2), RawTensor(b"b", (32,), 2)]
    with open_gguf(write(tmp_path, raw_gguf([], tensors, bytes(32))), lenient=True) as opened:
        assert not opened.broken
        assert [(t.type.name, t.nbytes) for t in opened.tensors] == [("Q4_0", 0), ("Q4_0", 18)]


@pytest.mark.parametrize("dims", [5, 8])
def test_more_dimensions_than_ggml_has(dims: int, tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf([], [RawTensor(shape=(2,) * 5 + (1,) * (dims - 5))], DATA))
    with open_gguf(path, lenient=True) as opened:
        assert opened.tensors[0].data().tobytes() == DATA
        assert len(opened.tensors[0].shape) == dims
    with pytest.raises(InputError, match="ComfyUI-GGUF"):
        open_gguf(path)


def nested(depth: int) -> bytes:
    """Arrays in arrays: `depth` levels around [1, 2]."""
    inner = struct.pack("<IQ", U8, 2) + b"\1\2"
    for _ in range(depth):
        inner = struct.pack("<IQ", ARRAY, 1) + inner
    return key(b"k", ARRAY, inner)


@pytest.mark.parametrize("depth", [1, WIDEST.nesting])
def test_arrays_of_arrays_are_read_and_written_back(depth: int, tmp_path: Path) -> None:
    raw = raw_gguf([nested(depth), u32_key(b"after", 7)])
    with open_gguf(write(tmp_path, raw), lenient=True) as opened:
        assert opened.metadata["after"] == 7
        assert [each.rule for each in opened.broken] == [FormatRule.NESTED]
        assert encode_header(opened.typed_metadata, (), (), 1, bounds=WIDEST) == raw


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (nested(WIDEST.nesting + 1), "array of arrays"),
        (nested(5000), "array of arrays"),
        (key(b"k", ARRAY, struct.pack("<IQ", ARRAY, 2**60)), "1152921504606846976 arrays"),
    ],
    ids=["one level too many", "a tower", "too many"],
)
def test_hostile_arrays_of_arrays_are_refused(payload: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        open_gguf(write(tmp_path, raw_gguf([payload])), lenient=True)


def test_arrays_of_arrays_count_against_the_memory_of_a_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = struct.pack("<IQ", U8, 0)
    path = write(tmp_path, raw_gguf([key(b"k", ARRAY, struct.pack("<IQ", ARRAY, 100) + empty * 100)]))
    open_gguf(path, lenient=True)
    monkeypatch.setattr(cursor, "MAX_COST", 99 * 1024)
    with pytest.raises(InputError, match="takes more than"):
        open_gguf(path, lenient=True)


def test_a_key_that_is_there_twice_has_both_values(tmp_path: Path) -> None:
    keys = [u32_key(b"a", 1), key(b"b", STRING, text(b"x")), u32_key(b"a", 2), key(b"a", STRING, text(b"y"))]
    with open_gguf(write(tmp_path, raw_gguf(keys)), lenient=True) as opened:
        assert opened.metadata == {"a": 1, "b": "x"}
        assert [(name, value.data) for name, value in opened.repeated] == [("a", 2), ("a", "y")]
        assert opened.broken[0].names == ("a", "a")


def test_the_keys_before_the_end_of_a_header_that_is_cut_short(tmp_path: Path) -> None:
    words = struct.pack("<IQ", STRING, 1000) + text(b"word") * 1000
    whole = raw_gguf([u32_key(b"a", 1), key(b"words", ARRAY, words), u32_key(b"b", 2)], [RawTensor()], DATA)
    after_keys = whole.index(b"a.weight")
    for size, n_keys in ((30, 0), (100, 1), (5000, 1), (after_keys, 3), (after_keys + 20, 3)):
        with open_gguf(write(tmp_path, whole[:size]), lenient=True) as opened:
            assert [each.rule for each in opened.broken] == [FormatRule.HEADER]
            assert list(opened.metadata) == ["a", "words", "b"][:n_keys]
            assert opened.tensors == ()
        with pytest.raises(InputError, match="cut short or damaged: download it again") as caught:
            open_gguf(tmp_path / "a.gguf")
        assert type(caught.value) is InputError


def test_names_of_broken_tensors_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf([], [RawTensor(b"\x1b[2Jevil", type_id=200)], DATA))
    with open_gguf(path, lenient=True) as opened:
        assert "\x1b" not in str(opened.broken[0].everywhere()) + "".join(opened.broken[0].names)


def test_messages_stay_short(tmp_path: Path) -> None:
    tensors = [RawTensor(b"n%05d" % n * 8, (32,), 200, 32 * n) for n in range(5000)]
    with pytest.raises(UnsupportedError, match="4999 more") as caught:
        open_gguf(write(tmp_path, raw_gguf([u32_key(b"k", U32)], tensors, bytes(32 * 5000))))
    assert len(str(caught.value)) < 800
