"""The reader against files that lie: one test for each attack. What ggml's own tests craft by hand is among them."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from broken_gguf import BROKEN, DATA, GOOD, UNSUPPORTED, array_of
from gguf_headers import HEADERS
from hypothesis import given
from hypothesis import strategies as st
from raw_gguf import (
    ARRAY,
    BOOL,
    F32_VALUE,
    STRING,
    U8,
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
from gguf_forge.storage.memory import memory_bound
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType


def refusal(raw: bytes, folder: Path) -> ForgeError:
    path = write(folder, raw)
    with pytest.raises(ForgeError) as caught:
        open_gguf(path)
    assert caught.value.file == path
    return caught.value


@pytest.mark.parametrize("attack", BROKEN)
def test_broken_files_are_refused(attack: str, tmp_path: Path) -> None:
    raw, message = BROKEN[attack]
    error = refusal(raw, tmp_path)
    assert isinstance(error, InputError)
    assert error.exit_code == 4
    with pytest.raises(InputError, match=message):
        raise error


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
    monkeypatch.setattr(cursor, "MAX_COST", len(keys) * 512 + 99)
    with pytest.raises(InputError, match="the header takes more than"):
        raise refusal(raw, tmp_path)


@pytest.mark.parametrize("kind", [BOOL, U8])
def test_numbers_of_an_array_cost_what_they_take_as_objects(kind: int, tmp_path: Path) -> None:
    """The bytes themselves are few, and a sparse file has them for nothing."""
    count = 9 << 20
    raw = raw_gguf([array_of(kind, count, b"")])
    path = write(tmp_path, raw)
    os.truncate(path, len(raw) + count)
    with pytest.raises(InputError, match="the header takes more than the 256 MiB"):
        open_gguf(path)


def test_a_header_fits_into_the_memory_of_the_run(tmp_path: Path, held: int) -> None:
    raw = raw_gguf([array_of(U8, 4 << 20, bytes(4 << 20))])
    path = write(tmp_path, raw)
    open_gguf(path).close()
    message = "its header would take about 128 MiB.*allow max_memory="
    with memory_bound(held + (64 << 20)), pytest.raises(InputError, match=message):
        open_gguf(path)


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
