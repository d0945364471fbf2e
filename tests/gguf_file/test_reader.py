"""The reader against files that lie: one test for each attack. What ggml's own tests craft by hand is among them."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf_headers import HEADERS
from hypothesis import given
from hypothesis import strategies as st
from raw_gguf import (
    ARRAY,
    BOOL,
    F32_VALUE,
    STRING,
    U8,
    U32,
    RawTensor,
    header_again,
    key,
    raw_gguf,
    text,
    u32_key,
    write,
)

import gguf_forge
from gguf_forge.errors import ForgeError, InputError, UnsupportedError
from gguf_forge.gguf_file import cursor, reader
from gguf_forge.gguf_file.header import encode_header
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.opened import open_gguf
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ByteOrder, Metadata
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

DATA = bytes(range(128))
GOOD = RawTensor()
HUGE = 2**63


def array_of(kind: int, count: int, payload: bytes = b"") -> bytes:
    return key(b"k", ARRAY, struct.pack("<IQ", kind, count) + payload)


def refusal(raw: bytes, folder: Path) -> ForgeError:
    path = write(folder, raw)
    with pytest.raises(ForgeError) as caught:
        open_gguf(path)
    assert caught.value.file == path
    return caught.value


BROKEN = {
    "empty": (b"", "the file is empty"),
    "magic alone": (b"GGUF", "has only 4 bytes"),
    "wrong magic": (raw_gguf(magic=b"FUGG"), "no GGUF file: it begins with b'FUGG'"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "web page": (b"<!DOCTYPE html><html></html>", "a web page"),
    "version 0": (raw_gguf(version=0), "version 0 does not exist"),
    "no counts": (raw_gguf()[:20], "the numbers of tensors and keys of 16 bytes does not fit"),
    "n_tensors of 2^63": (raw_gguf(n_tensors=HUGE), f"{HUGE} tensors are more than"),
    "n_keys of 2^63": (raw_gguf(n_keys=HUGE), f"{HUGE} keys are more than"),
    "n_tensors of 2^64-1": (raw_gguf(n_tensors=2**64 - 1), "tensors are more than"),
    "more tensors than fit": (raw_gguf(n_tensors=1000), "1000 tensors do not fit"),
    "more keys than fit": (raw_gguf(n_keys=1000), "1000 keys do not fit"),
    "one key more than there is": (raw_gguf([u32_key(b"a", 1)], n_keys=2), "2 keys do not fit|length of key 1"),
    "key of 2^63 bytes": (raw_gguf([struct.pack("<Q", HUGE) + bytes(32)]), f"key 0 has {HUGE} bytes"),
    "key beyond the file": (raw_gguf([struct.pack("<Q", 60000) + bytes(32)]), "key 0 of 60000 bytes does not fit"),
    "key too long": (raw_gguf([u32_key(b"k" * 65536, 1)]), "65535 are allowed"),
    "empty key": (raw_gguf([u32_key(b"", 1), u32_key(b"a", 1)]), "key 0, b'', is empty"),
    "key not UTF-8": (raw_gguf([u32_key(b"\xff", 1)]), r"key 0, b'\\xff', is not valid UTF-8"),
    "duplicate key": (raw_gguf([u32_key(b"a.b", 1), u32_key(b"a.b", 2)]), "key a.b is there twice"),
    "unknown value type": (raw_gguf([key(b"k", 13, bytes(8))]), "the value of k has the unknown type 13"),
    "value type of 2^32-1": (raw_gguf([key(b"k", 2**32 - 1, bytes(8))]), "unknown type 4294967295"),
    "value cut short": (raw_gguf([key(b"kk", U32, b"\0\0\0")]), "the value of kk of 4 bytes does not fit"),
    "string beyond the file": (raw_gguf([key(b"k", STRING, struct.pack("<Q", 99))]), "of 99 bytes does not fit"),
    "string of 2^64-1 bytes": (raw_gguf([key(b"k", STRING, struct.pack("<Q", 2**64 - 1))]), "are allowed"),
    "array of arrays": (raw_gguf([array_of(ARRAY, 1, bytes(20))]), "array of arrays"),
    "array of an unknown type": (raw_gguf([array_of(99, 1, bytes(20))]), "unknown type 99"),
    "array of 2^63 items": (raw_gguf([array_of(U8, HUGE)]), f"{HUGE} items"),
    "array whose size wraps": (raw_gguf([array_of(U32, 2**62 + 1, bytes(8))]), "items in the value of k"),
    "array beyond the file": (raw_gguf([array_of(U32, 100, bytes(8))]), "100 items in the value of k do not fit"),
    "2^63 strings": (raw_gguf([array_of(STRING, HUGE)]), f"{HUGE} strings"),
    "more strings than fit": (raw_gguf([array_of(STRING, 100, bytes(8))]), "100 strings in the value of k do not fit"),
    "string in an array beyond the file": (
        raw_gguf([array_of(STRING, 2, text(b"a") + struct.pack("<Q", 2**64 - 1))]),
        "has a string that does not fit",
    ),
    "string in an array that wraps to itself": (
        raw_gguf([array_of(STRING, 2, struct.pack("<QQ", 2**64 - 8, 0))]),
        "has a string that does not fit",
    ),
    "alignment 0": (raw_gguf([u32_key(b"general.alignment", 0)]), r"general.alignment is 0 \(UINT32\)"),
    "alignment 3": (raw_gguf([u32_key(b"general.alignment", 3)]), "general.alignment is 3"),
    "alignment of the wrong type": (raw_gguf([key(b"general.alignment", U8, b"\x20")]), r"is 32 \(UINT8\)"),
    "alignment a string": (raw_gguf([key(b"general.alignment", STRING, text(b"32"))]), r"\(STRING\)"),
    "alignment of 2^30": (raw_gguf([u32_key(b"general.alignment", 1 << 30)], [GOOD], DATA), "the file has only"),
    "alignment other than the padding": (
        raw_gguf([u32_key(b"general.alignment", 128)], [GOOD, RawTensor(b"b", offset=32)], DATA * 4),
        "at offset 32, but the tensors before it end at 128",
    ),
    "tensor name of 64 bytes": (raw_gguf([], [RawTensor(b"a" * 64)], DATA), "has 64 bytes; 63 are allowed"),
    "tensor name of 2^63 bytes": (
        raw_gguf([], [], struct.pack("<Q", HUGE) + bytes(64), n_tensors=1),
        f"the name of tensor 0 has {HUGE} bytes",
    ),
    "tensor name empty": (raw_gguf([], [RawTensor(b"")], DATA), "is empty, not valid UTF-8, or has a NUL"),
    "tensor name not UTF-8": (raw_gguf([], [RawTensor(b"\xc3")], DATA), "is empty, not valid UTF-8, or has a NUL"),
    "tensor name with a NUL": (raw_gguf([], [RawTensor(b"a\0b")], DATA), "is empty, not valid UTF-8, or has a NUL"),
    "duplicate tensor": (raw_gguf([], [GOOD, RawTensor(offset=128)], DATA * 2), "two tensors have this name"),
    "five dimensions": (raw_gguf([], [RawTensor(shape=(1,) * 5)], DATA), "has 5 dimensions"),
    "2^32-1 dimensions": (raw_gguf([], [RawTensor(n_dims=2**32 - 1)], DATA), "has 4294967295 dimensions"),
    "more dimensions than there are": (raw_gguf([], [RawTensor(n_dims=4)]), "the description of a.weight"),
    "negative dimension": (raw_gguf([], [RawTensor(shape=(HUGE,), type_id=24)], DATA), "more elements than"),
    "elements beyond 2^63": (raw_gguf([], [RawTensor(shape=(2**32, 2**32))], DATA), "more elements than"),
    "elements that wrap to 0": (raw_gguf([], [RawTensor(shape=(2**32, 2**32, 4))], DATA), "more elements than"),
    "bytes beyond 2^64": (raw_gguf([], [RawTensor(shape=(2**62,), type_id=28)], DATA), "the file has only"),
    "bytes whose padding wraps": (
        raw_gguf([], [RawTensor(shape=(4, 2**30 - 1, 2**30 + 1))], DATA),
        "the file has only",
    ),
    "sum of sizes wraps": (
        raw_gguf([], [RawTensor(b"a", (2**63 - 64,), 24), RawTensor(b"b", (2**63 - 64,), 24, 2**63 - 64)], DATA),
        "the file has only",
    ),
    "row of no whole blocks": (
        raw_gguf([], [RawTensor(shape=(33, 2), type_id=2)], DATA),
        "whole number of Q4_0 blocks",
    ),
    "offset in the header": (raw_gguf([], [RawTensor(offset=2**64 - 32)], DATA), "is said to be at offset"),
    "offset not aligned": (raw_gguf([], [RawTensor(offset=8)], DATA), "offset 8, but the tensors before it end at 0"),
    "overlap": (raw_gguf([], [GOOD, RawTensor(b"b", offset=96)], DATA * 2), "offset 96, but the tensors .* end at 128"),
    "gap": (raw_gguf([], [GOOD, RawTensor(b"b", offset=160)], DATA * 3), "offset 160, but the tensors .* end at 128"),
    "data cut short": (raw_gguf([], [GOOD], DATA[:-1]), "data ends at byte .* but the file has only"),
    "no data at all": (raw_gguf([], [GOOD]), "data ends at byte .* but the file has only"),
}


@pytest.mark.parametrize("attack", BROKEN)
def test_broken_files_are_refused(attack: str, tmp_path: Path) -> None:
    raw, message = BROKEN[attack]
    error = refusal(raw, tmp_path)
    assert isinstance(error, InputError)
    assert error.exit_code == 4
    with pytest.raises(InputError, match=message):
        raise error


UNSUPPORTED = {
    "version 1": (raw_gguf(version=1), "GGUF version 1; versions 2 and 3 are read"),
    "version 4": (raw_gguf(version=4), "GGUF version 4"),
    "version 1 big-endian": (raw_gguf(version=1, order=">"), "GGUF version 1;"),
    "version 4 big-endian": (raw_gguf(version=4, order=">"), "GGUF version 4"),
    "ggml": (b"lmgg" + bytes(64), "from before GGUF"),
    "ggjt": (b"tjgg" + bytes(64), "from before GGUF"),
    "removed type": (raw_gguf([], [RawTensor(type_id=4)], DATA), "type 4 is Q4_2, which llama.cpp removed"),
    "repacked type": (raw_gguf([], [RawTensor(type_id=31)], DATA), "type 31 is Q4_0_4_4, which llama.cpp removed"),
    "type of the future": (raw_gguf([], [RawTensor(type_id=43)], DATA), "tensor type 43 is not known"),
    "type of a fork": (raw_gguf([], [RawTensor(type_id=140)], DATA), "fork or newer release"),
    "type of 2^32-1": (raw_gguf([], [RawTensor(type_id=2**32 - 1)], DATA), "is not known"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_is_not_known_is_said_to_be(case: str, tmp_path: Path) -> None:
    raw, message = UNSUPPORTED[case]
    error = refusal(raw, tmp_path)
    assert isinstance(error, UnsupportedError)
    with pytest.raises(UnsupportedError, match=message):
        raise error


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (32, 0, 7)], ids=str)
def test_tensors_without_dimensions_or_elements_are_legal(shape: tuple[int, ...], tmp_path: Path) -> None:
    raw = raw_gguf([], [RawTensor(shape=shape)], bytes(32))
    (tensor,) = open_gguf(write(tmp_path, raw)).tensors
    assert tensor.shape == (shape or (1,))
    assert len(tensor.data()) == tensor.nbytes == (0 if shape else 4)


def test_bytes_behind_the_last_tensor_do_not_matter(tmp_path: Path) -> None:
    raw = raw_gguf([], [GOOD], DATA + b"more")
    assert open_gguf(write(tmp_path, raw)).tensors[0].data().tobytes() == DATA


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [2, 3])
def test_versions_and_byte_orders(version: int, order: str, tmp_path: Path) -> None:
    keys = [u32_key(b"general.alignment", 64, order), key(b"flag", BOOL, b"\x02", order)]
    tensors = [RawTensor(b"a", (2, 3), 1), RawTensor(b"b", (32,), 2, 64)]
    path = write(tmp_path, raw_gguf(keys, tensors, DATA, version=version, order=order, alignment=64))
    with gguf_forge.open_gguf(path) as opened:
        assert (opened.version, opened.byte_order, opened.paths) == (version, order, (path,))
        assert opened.metadata == {"general.alignment": 64, "flag": True}
        a, b = opened.tensors
        assert (a.name, a.shape, a.type.name, a.nbytes) == ("a", (2, 3), "F16", 12)
        assert a.offset % 64 == 0
        assert b.offset == a.offset + 64
        assert b.data().tobytes() == DATA[64:82]


@given(HEADERS[0], HEADERS[1], st.sampled_from("<>"))
def test_headers_are_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, metadata: Metadata, infos: list[TensorInfo], order: ByteOrder
) -> None:
    metadata = {name: value for name, value in metadata.items() if name and name != "general.alignment"}
    infos = [info for info in infos if "\0" not in info.name]
    layout = lay_out(metadata, infos)
    offsets = [placed.offset - layout.data_offset for placed in layout.tensors]
    raw = encode_header(metadata, infos, offsets, byte_order=order) + bytes(layout.size - layout.data_offset)
    path = write(tmp_path_factory.mktemp("headers"), raw)
    with open_gguf(path) as opened:
        assert [tensor.info for tensor in opened.tensors] == infos
        assert list(opened.typed_metadata) == list(metadata)
        for name, value in metadata.items():
            found = opened.typed_metadata[name]
            assert (found.type, found.element) == (value.type, value.element)
        assert raw.startswith(header_again(opened))


def test_a_nan_keeps_its_bits(tmp_path: Path) -> None:
    signalling = b"\x01\x00\x80\x7f"
    keys = [key(b"one", F32_VALUE, signalling), array_of(F32_VALUE, 2, signalling * 2)]
    raw = raw_gguf(keys)
    opened = open_gguf(write(tmp_path, raw))
    assert np.isnan(opened.metadata["one"])
    assert header_again(opened) == raw


def test_strings_that_are_not_utf8_are_bytes(tmp_path: Path) -> None:
    keys = [key(b"one", STRING, text(b"\xe2\x96")), array_of(STRING, 2, text(b"\xff") + text("▁a".encode()))]
    raw = raw_gguf(keys)
    opened = open_gguf(write(tmp_path, raw))
    assert opened.metadata == {"one": b"\xe2\x96", "k": (b"\xff", "▁a")}
    assert header_again(opened) == raw


@pytest.mark.parametrize("kind", TENSOR_TYPES.values(), ids=str)
def test_every_type_is_read(kind: TensorType, tmp_path: Path) -> None:
    tensor = RawTensor(shape=(2 * kind.block_elements, 3), type_id=kind.id)
    raw = raw_gguf([], [tensor], bytes(6 * kind.block_bytes))
    (found,) = open_gguf(write(tmp_path, raw)).tensors
    assert (found.type, found.nbytes) == (kind, 6 * kind.block_bytes)
    refusal(raw[:-1], tmp_path)


def test_strings_are_found_across_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gguf_forge.gguf_file.cursor._WINDOW", 24)
    words = [b"x" * (n * 7 % 40) for n in range(50)]
    raw = raw_gguf([array_of(STRING, len(words), b"".join(map(text, words)))])
    opened = open_gguf(write(tmp_path, raw))
    assert opened.metadata["k"] == tuple(word.decode() for word in words)


@pytest.mark.parametrize(
    ("limit", "raw", "message"),
    [
        ("MAX_KEYS", raw_gguf([u32_key(b"a", 1), u32_key(b"b", 1)]), "2 keys are more than the 1"),
        ("MAX_TENSORS", raw_gguf([], [GOOD, RawTensor(b"b", offset=128)], DATA * 2), "2 tensors are more than the 1"),
        ("MAX_ITEMS", raw_gguf([array_of(U8, 2, b"ab")]), "2 items in the value of k are more than the 1"),
        (
            "MAX_ITEMS",
            raw_gguf([array_of(STRING, 2, text(b"") * 2)]),
            "2 strings in the value of k are more than the 1",
        ),
    ],
)
def test_what_costs_too_much_is_refused(
    limit: str, raw: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, limit, 1)
    with pytest.raises(InputError, match=message):
        raise refusal(raw, tmp_path)


@pytest.mark.parametrize(
    "keys",
    [
        [key(b"k", STRING, text(b"x" * 100))],
        [key(name, STRING, text(b"x" * 40)) for name in (b"a", b"b", b"c")],
        [array_of(STRING, 2, text(b"") * 2)],
        [array_of(BOOL, 100, bytes(100))],
    ],
    ids=["one string", "three strings", "an array of strings", "an array of booleans"],
)
def test_headers_have_a_budget(keys: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_gguf(keys)
    open_gguf(write(tmp_path, raw))
    monkeypatch.setattr(cursor, "MAX_COST", 99)
    with pytest.raises(InputError, match="the header takes more than"):
        raise refusal(raw, tmp_path)


def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    raw = raw_gguf([key(b"\x1b[2Jevil", 77, b"")], data=bytes(16))
    assert "\x1b" not in str(refusal(raw, tmp_path))
    raw = raw_gguf([], [RawTensor(b"\x1b[2Jevil", n_dims=9)], DATA)
    assert "\x1b" not in str(refusal(raw, tmp_path))


@pytest.mark.parametrize("name", ["missing.gguf", "folder"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as caught:
        open_gguf(tmp_path / name)
    assert caught.value.file == tmp_path / name


def test_many_small_arrays_cost_little(tmp_path: Path) -> None:
    one = struct.pack("<IQ", U8, 1) + b"x"
    other = struct.pack("<IQ", STRING, 1) + text(b"x")
    keys = [key(b"%d" % n, ARRAY, one if n % 2 else other) for n in range(2000)]
    path = write(tmp_path, raw_gguf(keys))
    tracemalloc.start()
    opened = open_gguf(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(opened.metadata) == 2000
    assert most < 8 << 20


def test_a_giant_costs_nothing_to_open(tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf([], [RawTensor(shape=(1 << 20, 1 << 15))]))
    with path.open("r+b") as file:  # 128 GiB of holes
        file.truncate(path.stat().st_size + (4 << 35))
    with open_gguf(path) as opened:
        [tensor] = opened.tensors
        assert tensor.source.read(tensor.offset + tensor.nbytes - 1, 1) == [0]
