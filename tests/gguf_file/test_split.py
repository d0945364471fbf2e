from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.gguf_file.split import PartName, part_keys, part_path, parts_within
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.types.tensor_type import F32


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("m-00001-of-00003.gguf", ("m", 0, 3)),
        ("a-b-00002-of-00010-00003-of-00003.gguf", ("a-b-00002-of-00010", 2, 3)),
        ("-99999-of-99999.gguf", ("", 99998, 99999)),
        ("m.gguf", None),
        ("m-1-of-3.gguf", None),
        ("m-00001-of-00003.gguf.part", None),
        ("m-00001-of-0000٣.gguf", None),
    ],
)
def test_names(name: str, read: tuple[str, int, int] | None) -> None:
    found = PartName.read(name)
    assert found == read
    assert found is None or str(found) == name


def test_paths_of_parts() -> None:
    assert part_path(Path("a/m.gguf"), 0, 12) == Path("a/m-00001-of-00012.gguf")
    assert part_path(Path("a/m.v1"), 11, 12) == Path("a/m.v1-00012-of-00012.gguf")


def test_keys_of_parts() -> None:
    assert [(key, value.type.name, value.data) for key, value in part_keys(1, 3, 99).items()] == [
        ("split.no", "UINT16", 1),
        ("split.count", "UINT16", 3),
        ("split.tensors.count", "INT32", 99),
    ]


@pytest.mark.parametrize(
    ("sizes", "max_size", "max_tensors", "parts"),
    [
        ([8, 8, 8, 8], 64, None, [0, 0, 1, 1]),
        ([1, 1, 1, 1], 64, None, [0, 0, 1, 1]),  # padding counts
        ([8, 99, 8], 64, None, [0, 1, 2]),  # one that is too large has a part of its own
        ([99, 8], 64, None, [0, 1]),
        ([8] * 5, None, 2, [0, 0, 1, 1, 2]),
        ([8] * 4, 64, 3, [0, 0, 1, 1]),
        ([8] * 4, None, None, [0, 0, 0, 0]),
        ([], 64, 2, []),
    ],
)
def test_parts(sizes: list[int], max_size: int | None, max_tensors: int | None, parts: list[int]) -> None:
    infos = [TensorInfo(str(number), (size,), F32) for number, size in enumerate(sizes)]
    assert parts_within(infos, max_size, max_tensors) == parts
