from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_gguf import ARRAY, STRING, U8, RawTensor, header_again, key, raw_gguf, text, write

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.opened import open_gguf
from gguf_forge.gguf_file.values import ValueType

DATA = bytes(range(128))


def u16(name: bytes, number: int) -> bytes:
    return key(name, ValueType.UINT16, struct.pack("<H", number))


def shard(number: int, tensor: bytes, *, count: int = 3, tensors: int = 3, keys: tuple[bytes, ...] = ()) -> bytes:
    split = (
        u16(b"split.no", number),
        u16(b"split.count", count),
        key(b"split.tensors.count", ValueType.INT32, struct.pack("<i", tensors)),
    )
    return raw_gguf([*keys, *split], [RawTensor(tensor)], DATA)


def write_split(folder: Path, **changed: bytes) -> Path:
    """A split of three files; `first`, `second`, `third` replace one."""
    shards = {
        "first": shard(0, b"a", keys=(key(b"general.name", STRING, text(b"Split")),)),
        "second": shard(1, b"b"),
        "third": shard(2, b"c"),
    }
    paths = [
        write(folder, raw, f"m-{number:05}-of-00003.gguf")
        for number, raw in enumerate({**shards, **changed}.values(), start=1)
    ]
    return paths[0]


def test_a_split_is_opened_as_one(tmp_path: Path) -> None:
    path = write_split(tmp_path)
    with open_gguf(path) as opened:
        assert [other.name for other in opened.paths] == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
        assert [tensor.name for tensor in opened.tensors] == ["a", "b", "c"]
        assert [tensor.source.path for tensor in opened.tensors] == list(opened.paths)
        assert [[tensor.name for tensor in tensors] for tensors in opened.shards] == [["a"], ["b"], ["c"]]
        assert opened.metadata["general.name"] == "Split"
        assert all(tensor.data().tobytes() == DATA for tensor in opened.tensors)


Break = Callable[[Path], object]
BROKEN: dict[str, tuple[Break, str, str]] = {
    "part missing": (
        lambda folder: (write_split(folder), (folder / "m-00002-of-00003.gguf").unlink()),
        "m-00002-of-00003.gguf",
        "2 of 3 parts are here; 00002 is missing",
    ),
    "parts swapped": (
        lambda folder: write_split(folder, second=shard(2, b"c"), third=shard(1, b"b")),
        "m-00002-of-00003.gguf",
        "split.no is 2 where 1 is expected",
    ),
    "first part in two places": (
        lambda folder: write_split(folder, second=shard(0, b"a")),
        "m-00002-of-00003.gguf",
        "split.no is 0 where 1 is expected",
    ),
    "first part is not": (
        lambda folder: write_split(folder, first=shard(1, b"a")),
        "m-00001-of-00003.gguf",
        "split.no is 1 where 0",
    ),
    "part of another split": (
        lambda folder: write_split(folder, third=shard(2, b"c", count=4)),
        "m-00003-of-00003.gguf",
        "split.count is 4 where 3 is expected",
    ),
    "count other than the name's": (
        lambda folder: write_split(folder, first=shard(0, b"a", count=2)),
        "m-00001-of-00003.gguf",
        "split.count is 2, but the name",
    ),
    "no split keys": (
        lambda folder: write_split(folder, first=raw_gguf([], [RawTensor(b"a")], DATA)),
        "m-00001-of-00003.gguf",
        "one of 3 files, but split.count does not",
    ),
    "no split keys in a later part": (
        lambda folder: write_split(folder, second=raw_gguf([], [RawTensor(b"b")], DATA)),
        "m-00002-of-00003.gguf",
        "split.no is missing",
    ),
    "split.no no number": (
        lambda folder: write_split(folder, second=raw_gguf([key(b"split.no", STRING, text(b"1"))])),
        "m-00002-of-00003.gguf",
        "split.no is not a whole number",
    ),
    "split.count an array": (
        lambda folder: write_split(
            folder, first=raw_gguf([key(b"split.count", ValueType.ARRAY, struct.pack("<IQ", U8, 1) + b"\3")])
        ),
        "m-00001-of-00003.gguf",
        "split.count is not a whole number",
    ),
    "wrong number of tensors": (
        lambda folder: write_split(folder, first=shard(0, b"a", tensors=4)),
        "m-00001-of-00003.gguf",
        "split.tensors.count is 4, but the 3 files have 3 tensors",
    ),
    "tensor in two parts": (
        lambda folder: write_split(folder, third=shard(2, b"a")),
        "m-00003-of-00003.gguf",
        "a: the tensor is also in m-00001-of-00003.gguf",
    ),
    "part cut short": (
        lambda folder: write_split(folder, second=shard(1, b"b")[:-1]),
        "m-00002-of-00003.gguf",
        "the file has only",
    ),
}


@pytest.mark.parametrize("attack", BROKEN)
def test_broken_splits_are_refused(attack: str, tmp_path: Path) -> None:
    make, culprit, message = BROKEN[attack]
    make(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        open_gguf(tmp_path / "m-00001-of-00003.gguf")
    assert caught.value.file is not None
    assert caught.value.file.name == culprit


def test_a_later_part_names_the_first(tmp_path: Path) -> None:
    write_split(tmp_path)
    with pytest.raises(InputError, match="not the first file of its split; name m-00001-of-00003"):
        open_gguf(tmp_path / "m-00002-of-00003.gguf")


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not end in -of-00003"):
        open_gguf(write(tmp_path, shard(0, b"a")))


def test_a_split_of_one_file_is_a_file(tmp_path: Path) -> None:
    assert len(open_gguf(write(tmp_path, shard(0, b"a", count=1, tensors=1), "x.gguf")).tensors) == 1


def test_data_ends_with_the_block(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path, raw_gguf([], [RawTensor()], DATA))) as opened:
        opened.check_unchanged()
    with pytest.raises(InputError, match="after it was closed"):
        opened.tensors[0].data()


def test_the_header_outlives_a_file_that_is_cut_short(tmp_path: Path) -> None:
    words = [f"token {number}" for number in range(100_000)]
    strings = struct.pack("<IQ", STRING, len(words)) + b"".join(text(word.encode()) for word in words)
    bytes_ = struct.pack("<IQ", U8, 1 << 21) + bytes(range(256)) * (1 << 13)
    raw = raw_gguf([key(b"words", ARRAY, strings), key(b"bytes", ARRAY, bytes_)], [RawTensor()], DATA)
    path = write(tmp_path, raw)
    with open_gguf(path) as opened:
        path.write_bytes(b"")
        assert list(opened.metadata["words"]) == words
        assert opened.metadata["bytes"][-3:] == (253, 254, 255)
        assert raw.startswith(header_again(opened))
        with pytest.raises(InputError, match="became shorter"):
            opened.tensors[0].data()


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf([], [RawTensor()], DATA))
    with open_gguf(path) as opened:
        path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(InputError, match="changed while it was read"):
            opened.check_unchanged()
