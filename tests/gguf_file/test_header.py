from __future__ import annotations

import struct
from pathlib import Path

import gguf
import pytest
from gguf_headers import HEADERS
from hypothesis import given

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.header import encode_header
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, array, boolean, f32, string, u32
from gguf_forge.types.tensor_type import F16, F32


def reference_header(metadata: Metadata, tensors: list[TensorInfo], folder: Path, endian: gguf.GGUFEndian) -> bytes:
    """What the writer of the gguf package makes of it."""
    writer = gguf.GGUFWriter(folder / "reference.gguf", "none", endianess=endian)
    del writer.kv_data[0]["general.architecture"]
    for key, value in metadata.items():
        sub_type = None if value.element is None else gguf.GGUFValueType(value.element)
        data = list(value.data) if value.type is ValueType.ARRAY else value.data
        writer.add_key_value(key, data, gguf.GGUFValueType(value.type), sub_type)
    for info in tensors:
        writer.tensors[0][info.name] = gguf.gguf_writer.TensorInfo(
            shape=info.shape[::-1], dtype=gguf.GGMLQuantizationType(info.type.id), nbytes=info.nbytes
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    writer.write_padding(writer.fout[0], writer.fout[0].tell())
    writer.close()
    return (folder / "reference.gguf").read_bytes()


@given(*HEADERS)
def test_header_is_that_of_the_gguf_package(
    tmp_path_factory: pytest.TempPathFactory, metadata: Metadata, tensors: list[TensorInfo]
) -> None:
    known = {int(kind) for kind in gguf.GGMLQuantizationType}
    tensors = [info for info in tensors if info.type.id in known]
    folder = tmp_path_factory.mktemp("header")
    layout = lay_out(metadata, tensors)
    assert layout.header == reference_header(metadata, tensors, folder, gguf.GGUFEndian.LITTLE)
    offsets = [placed.offset - layout.data_offset for placed in layout.tensors]
    big_endian = encode_header(metadata, tensors, offsets, byte_order=">")
    assert big_endian == reference_header(metadata, tensors, folder, gguf.GGUFEndian.BIG)


def test_bytes_of_a_small_header() -> None:
    header = encode_header({"a": u32(7)}, [TensorInfo("t", (3, 2), F16)], [64])
    assert header == (
        b"GGUF"
        + struct.pack("<IQQ", 3, 1, 1)
        + struct.pack("<Q", 1)
        + b"a"
        + struct.pack("<II", 4, 7)
        + struct.pack("<Q", 1)
        + b"t"
        + struct.pack("<IQQIQ", 2, 3, 2, 1, 64)
    ).ljust(96, b"\0")


def test_the_gguf_reader_reads_it_back(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": string("llama"),
        "tokenizer.ggml.tokens": array(ValueType.STRING, ["a", b"\xff", "ü"]),
        "tokenizer.ggml.scores": array(ValueType.FLOAT32, [0.5, -1000.0, 1.0]),
        "x": f32(0.25),
        "y": boolean(True),
    }
    layout = lay_out(metadata, [TensorInfo("a.weight", (5, 2), F32), TensorInfo("b.weight", (8,), F16)])
    path = tmp_path / "a.gguf"
    path.write_bytes(layout.header.ljust(layout.size, b"\0"))
    reader = gguf.GGUFReader(path)
    assert reader.fields["tokenizer.ggml.scores"].contents() == [0.5, -1000.0, 1.0]
    assert (
        bytes(reader.fields["tokenizer.ggml.tokens"].parts[reader.fields["tokenizer.ggml.tokens"].data[1]]) == b"\xff"
    )
    assert reader.fields["y"].contents() is True
    assert [(t.name, t.shape.tolist(), t.data_offset) for t in reader.tensors] == [
        (placed.info.name, list(placed.info.shape), placed.offset) for placed in layout.tensors
    ]


def test_a_large_vocabulary_is_written_whole() -> None:
    tokens = [f"token{i}" for i in range(128_256)]
    header = encode_header({"tokens": array(ValueType.STRING, tokens)}, (), (), alignment=1)
    assert len(header) == 24 + 14 + 4 + 4 + 8 + sum(8 + len(token) for token in tokens)
    assert header.endswith(struct.pack("<Q", 11) + b"token128255")


@pytest.mark.parametrize("size", [1, 63])
def test_names_up_to_the_limit_of_ggml(size: int) -> None:
    assert b"n" * size in encode_header({}, [TensorInfo("n" * size, (1,), F32)], [0])


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        (TensorInfo("", (1,), F32), "0 bytes"),
        (TensorInfo("n" * 64, (1,), F32), "64 bytes"),
        (TensorInfo("ü" * 32, (1,), F32), "64 bytes"),
        (TensorInfo("\ud800", (1,), F32), "not valid Unicode"),
        (TensorInfo("a", (1,) * 5, F32), "5 dimensions"),
        (TensorInfo("a", (-1,), F32), "cannot be written"),
        (TensorInfo("a", (2**64,), F32), "cannot be written"),
    ],
)
def test_tensors_that_ggml_cannot_load(info: TensorInfo, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        encode_header({}, [info], [0])


def test_a_name_twice() -> None:
    with pytest.raises(InputError, match="same name"):
        encode_header({}, [TensorInfo("a", (1,), F32)] * 2, [0, 32])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (Value(ValueType.UINT32, -1), "UINT32"),
        (Value(ValueType.UINT8, 256), "UINT8"),
        (Value(ValueType.INT32, 0.5), "INT32"),
        (Value(ValueType.INT32, "1"), "INT32"),
        (Value(ValueType.FLOAT32, 1e39), "FLOAT32"),
        (array(ValueType.INT32, [0, 2**31]), "INT32"),
        (string("\ud800"), "Unicode"),
        (array(ValueType.STRING, ["a", "\udfff"]), "Unicode"),
        (array(ValueType.ARRAY, [(1,)]), "array of arrays"),
    ],
)
def test_values_that_cannot_be_written(value: Value, problem: str) -> None:
    with pytest.raises(InputError, match=f"some.key.*{problem}"):
        encode_header({"some.key": value}, (), ())
