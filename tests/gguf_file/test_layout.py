from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpus import manifests, read_manifest, short, tensor_infos

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, array, string, u32
from gguf_forge.types.tensor_type import F32, TENSOR_TYPES


@pytest.mark.parametrize("path", manifests(), ids=short)
def test_layout_is_that_of_the_reference(path: Path) -> None:
    manifest = read_manifest(path)
    if "tensors" not in manifest:
        pytest.skip("a split file: its manifest has sizes alone")
    layout = lay_out({}, tensor_infos(manifest))
    assert [
        {"offset": placed.offset - layout.data_offset, "nbytes": placed.info.nbytes} for placed in layout.tensors
    ] == [{key: tensor[key] for key in ("offset", "nbytes")} for tensor in manifest["tensors"]]
    if manifest["tensor_count"]:
        assert layout.size - layout.data_offset == manifest["size"] - manifest["data_offset"]


def metadata_of(manifest: dict[str, Any]) -> Metadata:
    return {
        entry["key"]: array(ValueType[entry["elem_type"]], entry["value"])
        if entry["type"] == "ARRAY"
        else Value(ValueType[entry["type"]], entry["value"])
        for entry in manifest["kv"]
    }


def test_headers_are_as_long_as_those_of_the_reference() -> None:
    whole = [
        manifest
        for manifest in map(read_manifest, manifests())
        if all("value" in entry for entry in manifest.get("kv", [{}]))
    ]
    if not whole:
        pytest.skip("no corpus")
    for manifest in whole:
        layout = lay_out(metadata_of(manifest), tensor_infos(manifest))
        assert (layout.data_offset, layout.size) == (manifest["data_offset"], manifest["size"])


def test_each_tensor_is_padded_the_last_one_too() -> None:
    q4_k = TENSOR_TYPES["Q4_K"]
    layout = lay_out({}, [TensorInfo("a", (256, 3), q4_k), TensorInfo("b", (1,), F32)])
    assert len(layout.header) == layout.data_offset
    assert layout.data_offset % 32 == 0
    assert [placed.offset - layout.data_offset for placed in layout.tensors] == [0, 448]  # 3 x 144 = 432
    assert layout.size - layout.data_offset == 448 + 32


def test_a_vocabulary_alone_has_no_padding_and_an_empty_shard_has() -> None:
    metadata = {"general.architecture": string("llama")}
    alone, shard = lay_out(metadata, (), vocab_only=True), lay_out(metadata, ())
    assert alone.header == shard.header.rstrip(b"\0")
    assert (alone.size, shard.size) == (len(alone.header), 96)


def test_the_alignment_of_the_metadata_counts() -> None:
    layout = lay_out({"general.alignment": u32(256)}, [TensorInfo("a", (1,), F32), TensorInfo("b", (1,), F32)])
    assert [placed.offset for placed in layout.tensors] == [256, 512]
    assert layout.size == 768


@pytest.mark.parametrize("value", [u32(0), u32(4), u32(48), Value(ValueType.INT32, 32), string("32")])
def test_alignments_that_no_reader_takes(value: Value) -> None:
    with pytest.raises(InputError, match=r"general\.alignment"):
        lay_out({"general.alignment": value}, ())
