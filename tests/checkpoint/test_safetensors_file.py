"""One test for each way in which a .safetensors file can be wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.checkpoint import safetensors_file
from gguf_forge.checkpoint.safetensors_file import StoredTensor, read_safetensors_header
from gguf_forge.errors import ForgeError, InputError, UnsupportedError
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.memory import memory_bound
from gguf_forge.types.element_type import ELEMENT_TYPES


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def encode(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def read(path: Path, raw: bytes) -> dict[str, StoredTensor]:
    path.write_bytes(raw)
    return read_safetensors_header(SourceFile(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


BROKEN = {
    "empty file": (b"", "empty"),
    "less than 8 bytes": (b"\2\0\0", "only 3 bytes"),
    "header longer than the file": (struct.pack("<Q", 3) + b"{}", "claims 3 bytes, but the file has 10"),
    "header of 2^63 bytes": (struct.pack("<Q", 2**63) + b"{}", "9223372036854775808"),
    "header above 100 MB": (struct.pack("<Q", 100_000_001) + b"{}", "100000001"),
    "invalid UTF-8": (encode(b'{"\xff": 1}'), "UTF-8 at byte 10"),
    "invalid JSON": (encode(b'{"a": 1,}'), "JSON"),
    "no object": (encode(b"[1]"), "'{'"),
    "space before the object": (encode(b" {}"), "'{'"),
    "text after the object": (encode(b"{}{}"), "JSON"),
    "a tensor twice": (
        encode(b'{"a": %s, "a": %s}' % ((json.dumps(entry(0, 1)).encode(),) * 2), b"0"),
        "'a' is there twice",
    ),
    "a key twice": (
        encode(b'{"a": {"dtype": "U8", "dtype": "I8", "shape": [], "data_offsets": [0, 1]}}', b"0"),
        "dtype",
    ),
    "deep nesting": (encode(b'{"a":' * 50_000), "nested too deeply"),
    "an integer of too many digits": (encode(b'{"a": %s}' % (b"9" * 5000)), "not valid"),
    "NaN": (encode(b'{"a": NaN}'), "NaN"),
    "entry is no object": (encode({"a": 1}), "a: the entry lacks"),
    "entry lacks its shape": (
        encode({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"0"),
        "a: the entry lacks",
    ),
    "begin after end": (encode({"a": entry(4, 2, [2])}, b"0000"), "begins at 4, after its end at 2"),
    "data cut short": (encode({"a": entry(0, 4)}, b"000"), "cut short"),
    "overlap": (encode({"a": entry(0, 4), "b": entry(2, 6)}, b"0" * 6), "b: the data overlaps"),
    "the same range twice": (encode({"a": entry(0, 4), "b": entry(0, 4)}, b"0" * 4), "b: the data overlaps"),
    "gap": (encode({"a": entry(0, 2), "b": entry(3, 4)}, b"0000"), "b: 1 bytes before the data"),
    "gap at the start": (encode({"a": entry(1, 2)}, b"00"), "a: 1 bytes before the data"),
    "trailing bytes": (encode({"a": entry(0, 2)}, b"0000"), "last 2 bytes"),
    "data without tensors": (encode({}, b"00"), "last 2 bytes"),
    "length is not shape times type": (
        encode({"a": entry(0, 4, [2], "F32")}, b"0000"),
        "4 bytes cannot be F32",
    ),
    "half a byte": (encode({"a": entry(0, 1, [1], "F4")}, b"0"), "1 bytes cannot be F4"),
    "shape overflows 64 bits to the right size": (
        encode({"a": entry(0, 4, [2**32, 2**32 + 1, 1, 4], "U8")}, b"0000"),
        "4 bytes cannot be U8",
    ),
    "shape overflows to zero": (encode({"a": entry(0, 0, [2**62, 2**62])}), "0 bytes cannot be U8"),
    "negative size": (encode({"a": entry(0, 1, [-1])}, b"0"), "shape"),
    "size is a float": (encode({"a": entry(0, 1, [1.0])}, b"0"), "shape"),
    "size is true": (encode({"a": entry(0, 1, [True])}, b"0"), "shape"),
    "size above 2^63": (encode({"a": entry(0, 1, [2**63])}, b"0"), "shape"),
    "shape is not a list": (encode({"a": {"dtype": "U8", "shape": 1, "data_offsets": [0, 1]}}, b"0"), "shape"),
    "too many dimensions": (encode({"a": entry(0, 1, [1] * 33)}, b"0"), "shape"),
    "offsets are no pair": (encode({"a": {"dtype": "U8", "shape": [], "data_offsets": [0]}}, b"0"), "pair"),
    "negative offset": (encode({"a": {"dtype": "U8", "shape": [], "data_offsets": [-1, 0]}}, b"0"), "pair"),
    "offset is a float": (
        encode({"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1.0]}}, b"0"),
        "pair",
    ),
    "metadata that is no text": (encode({"__metadata__": {"a": 1}}), "__metadata__"),
    "metadata that is a list": (encode({"__metadata__": ["a"]}), "__metadata__"),
    "a lone surrogate in a name": (encode(b'{"\\ud800": 1}'), "not valid Unicode"),
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "Git LFS pointer.*git lfs pull",
    ),
    "web page": (b"\n<!DOCTYPE html><html>", "web page.*download it again"),
    "error of a server": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "error message"),
    "PyTorch file": (b"PK\3\4" + bytes(60), "PyTorch"),
    "GGUF file": (b"GGUF" + bytes(60), "GGUF file.*gguf-forge quantize"),
}


@pytest.mark.parametrize(("raw", "problem"), BROKEN.values(), ids=BROKEN)
def test_broken(path: Path, raw: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        read(path, raw)
    assert caught.value.file == path
    assert caught.value.hint


@pytest.mark.parametrize("dtype", ["I4", "f32", "", 7, None, ["F32"]])
def test_unknown_types_are_named(path: Path, dtype: object) -> None:
    with pytest.raises(UnsupportedError, match="blk") as caught:
        read(path, encode({"blk": entry(0, 1, [1], dtype)}, b"0"))
    assert repr(dtype) in caught.value.problem


def test_names_in_messages_cannot_act_on_the_terminal(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(path, encode({"\x1b[2J" + "x" * 1000: 1}))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_order_is_by_name_and_the_place_is_of_the_file(path: Path) -> None:
    raw = encode({"b": entry(0, 2), "__metadata__": {"format": "pt"}, "a": entry(2, 6, [1], "F32")}, bytes(range(6)))
    tensors = read(path, raw)
    assert list(tensors) == ["a", "b"]
    assert (tensors["a"].offset, tensors["a"].nbytes) == (len(raw) - 4, 4)
    assert tensors["b"].array().tolist() == [0, 1]


def test_scalars_and_empty_tensors(path: Path) -> None:
    header = {"a": entry(0, 0, [0, 3], "F32"), "b": entry(0, 4, [], "F32"), "c": entry(4, 4, [2, 0], "BF16")}
    tensors = read(path, encode(header, struct.pack("<f", 2.5)))
    assert {name: tensor.array().shape for name, tensor in tensors.items()} == {
        "a": (0, 3),
        "b": (),
        "c": (2, 0),
    }
    assert tensors["b"].array() == 2.5


def test_a_file_without_tensors(path: Path) -> None:
    assert read(path, encode({})) == {}
    assert read(path, encode(b"{}      ")) == {}


def test_unaligned_data(path: Path) -> None:
    raw = encode(json.dumps({"a": entry(0, 1), "b": entry(1, 9, [2], "F32")}).encode(), b"x" + struct.pack("<2f", 1, 2))
    assert read(path, raw)["b"].array().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("size", [99_994, 99_999, 100_000, 1_000_000])
def test_long_headers(path: Path, size: int) -> None:
    header = json.dumps({"a": entry(0, 1)}).encode().ljust(size)
    assert list(read(path, encode(header, b"0"))) == ["a"]


@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
def test_every_type_has_an_array_of_its_bytes(path: Path, dtype: str) -> None:
    bits = ELEMENT_TYPES[dtype].bits
    data = bytes(range(bits))  # eight elements
    array = read(path, encode({"a": entry(0, bits, [2, 4], dtype)}, data))["a"].array()
    assert array.tobytes() == data
    assert array.dtype == ELEMENT_TYPES[dtype].dtype
    assert array.shape == ((2, 4) if bits >= 8 else (bits,))


def test_what_the_library_writes(path: Path) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}
    tensors["a"] = np.arange(4, dtype=np.int64)
    safetensors.numpy.save_file(tensors, path, {"format": "np"})
    found = read_safetensors_header(SourceFile(path))
    assert list(found) == ["a", "b"]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name].array(), tensor)


ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F16", "F32", "F4"]),
        "shape": st.lists(st.integers(0, 4), max_size=3),
        "data_offsets": st.tuples(st.integers(0, 12), st.integers(0, 12)),
    }
)


@given(
    st.dictionaries(st.text("abc", max_size=2), ENTRIES, max_size=3).map(json.dumps).map(str.encode)
    | st.binary(max_size=40),
    st.binary(max_size=12),
)
def test_what_the_library_refuses_is_refused(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, data: bytes
) -> None:
    raw = encode(header, data)
    try:
        wanted = dict(safetensors.deserialize(raw))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError:
        with pytest.raises(ForgeError):
            read(tmp_path_factory.mktemp("fuzz") / "a.safetensors", raw)
        return
    found = read(tmp_path_factory.mktemp("fuzz") / "a.safetensors", raw)
    assert {name: (t.dtype, list(t.shape), t.array().tobytes()) for name, t in found.items()} == {
        name: (tensor["dtype"], tensor["shape"], bytes(tensor["data"])) for name, tensor in wanted.items()
    }


def test_a_header_that_does_not_fit_into_the_memory_of_the_run(tmp_path: Path, held: int) -> None:
    """Empty tensors cost their author nothing."""
    entries = (f'"{number:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for number in range(60_000))
    header = ("{" + ",".join(entries) + "}").encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with SourceFile(path) as source:
        assert len(read_safetensors_header(source)) == 60_000
        message = "its header would take about .* allow max_memory="
        with memory_bound(held + (32 << 20)), pytest.raises(InputError, match=message):
            read_safetensors_header(source)


def test_more_tensors_than_any_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_file, "MAX_TENSORS", 2)
    entries = ",".join(f'"{number}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for number in range(3))
    header = f"{{{entries}}}".encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with SourceFile(path) as source, pytest.raises(InputError, match="the header has 3 tensors, and 2 are read"):
        read_safetensors_header(source)
