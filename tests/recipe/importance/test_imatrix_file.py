"""Reading importance matrices: what both formats mean, and one test per way to be broken."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imatrices import METADATA, Entry, made_up, write_gguf, write_legacy

from gguf_forge.errors import ForgeError, InputError
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import string
from gguf_forge.recipe import read_imatrix
from gguf_forge.types.tensor_type import F32

ENTRIES: dict[str, Entry] = {
    "a.weight": (np.array([[2, 4, 6]], np.float32), np.array([2], np.float32)),
    "b.weight": (np.array([[1, 2], [3, 4], [5, 6]], np.float32), np.array([4, 0, 2], np.float32)),
}


def test_gguf_means_are_by_expert_and_unused_experts_weigh_alike(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", ENTRIES)
    matrix = read_imatrix(tmp_path / "m.gguf")
    assert {name: importance.tolist() for name, importance in matrix.importance.items()} == {
        "a.weight": [1, 2, 3],
        "b.weight": [0.25, 0.5, 1, 1, 2.5, 3],
    }
    assert (matrix.file, matrix.datasets, matrix.chunks) == (str(tmp_path / "m.gguf"), ("calibration.txt",), 12)


def test_legacy_sums_are_divided_by_the_calls(tmp_path: Path) -> None:
    write_legacy(tmp_path / "m.dat", ENTRIES)
    matrix = read_imatrix(tmp_path / "m.dat")
    assert matrix.importance["a.weight"].tolist() == [1, 2, 3]
    assert matrix.importance["b.weight"].tolist() == [0.25, 0.5, 0.75, 1, 1.25, 1.5]
    assert (matrix.datasets, matrix.chunks) == (("calibration.txt",), 12)


def test_legacy_zero_calls_leave_the_sums(tmp_path: Path) -> None:
    write_legacy(tmp_path / "m.dat", {"a": (np.array([[2, 4]], np.float32), np.zeros(1, np.float32))})
    assert read_imatrix(tmp_path / "m.dat").importance["a"].tolist() == [2, 4]


def test_legacy_files_may_end_after_the_entries(tmp_path: Path) -> None:
    write_legacy(tmp_path / "m.dat", ENTRIES, dataset="")
    content = (tmp_path / "m.dat").read_bytes()[:-8]
    (tmp_path / "m.dat").write_bytes(content)
    matrix = read_imatrix(tmp_path / "m.dat")
    assert (matrix.datasets, matrix.chunks) == ((), 0)


def test_the_content_tells_the_format_not_the_name(tmp_path: Path) -> None:
    write_legacy(tmp_path / "m.gguf", ENTRIES)
    write_gguf(tmp_path / "m.dat", ENTRIES)
    assert read_imatrix(tmp_path / "m.gguf").importance["b.weight"].tolist()[2] == 0.75
    assert read_imatrix(tmp_path / "m.dat").importance["b.weight"].tolist()[2] == 1


def test_include_and_exclude_choose_by_text(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", ENTRIES)
    matrix = read_imatrix(tmp_path / "m.gguf")
    assert list(matrix.selected(include=["a."]).importance) == ["a.weight"]
    assert list(matrix.selected(exclude=["a."]).importance) == ["b.weight"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("write", [write_gguf, write_legacy])
def test_importance_that_is_none(tmp_path: Path, write: object, value: float) -> None:
    write(tmp_path / "m", {"a.weight": (np.array([[1, value]], np.float32), np.ones(1, np.float32))})  # type: ignore[operator]
    with pytest.raises(InputError, match=r"m: the importance of a\.weight is not all finite and positive"):
        read_imatrix(tmp_path / "m")


def test_a_gguf_file_of_a_model_is_no_matrix(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", ENTRIES, {"general.architecture": string("llama")})
    with pytest.raises(InputError, match=r"no importance matrix: it lacks imatrix\.datasets"):
        read_imatrix(tmp_path / "m.gguf")


def test_metadata_of_other_types(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", ENTRIES, {**METADATA, "imatrix.chunk_count": string("many")})
    with pytest.raises(InputError, match=r"imatrix\.chunk_count is of another type"):
        read_imatrix(tmp_path / "m.gguf")


def test_sums_without_counts(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {"a.weight": ENTRIES["a.weight"]})
    content = (tmp_path / "m.gguf").read_bytes().replace(b"a.weight.counts", b"b.weight.counts")
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.weight needs \.in_sum2 and \.counts"):
        read_imatrix(tmp_path / "m.gguf")


def test_counts_that_do_not_divide_the_sums(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {"a.weight": (np.ones((1, 3), np.float32), np.ones(2, np.float32))})
    with pytest.raises(InputError, match=r"a\.weight has 3 sums for 2 counts"):
        read_imatrix(tmp_path / "m.gguf")


@pytest.mark.parametrize("content", [b"", b"\0", struct.pack("<i", 0), struct.pack("<i", -1), b"version https://git"])
def test_files_that_are_neither(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InputError, match=r"m: "):
        read_imatrix(tmp_path / "m")


@pytest.mark.parametrize("length", [-1, 2**31 - 1])
def test_legacy_lengths_beyond_the_file(tmp_path: Path, length: int) -> None:
    (tmp_path / "m").write_bytes(struct.pack("<ii", 1, length) + b"name")
    with pytest.raises(InputError, match="the name of entry 0"):
        read_imatrix(tmp_path / "m")
    (tmp_path / "m").write_bytes(struct.pack("<ii4sii", 1, 4, b"name", 1, length) + b"\0" * 8)
    with pytest.raises(InputError, match="entry 0"):
        read_imatrix(tmp_path / "m")


@pytest.mark.parametrize("write", [write_gguf, write_legacy])
def test_files_cut_off_at_any_byte(tmp_path: Path, write: object) -> None:
    write(tmp_path / "whole", ENTRIES)  # type: ignore[operator]
    content = (tmp_path / "whole").read_bytes().rstrip(b"\0")  # less the padding
    # a legacy file may end after its entries: before the chunks, or before the name of the dataset
    fine = {len(content) - 8 - len("calibration.txt"), len(content) - 4 - len("calibration.txt")}
    for length in set(range(len(content))) - (fine if write is write_legacy else set()):
        (tmp_path / "m").write_bytes(content[:length])
        with pytest.raises(InputError):
            read_imatrix(tmp_path / "m")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_imatrix(tmp_path / "m")


@given(st.data())
def test_damaged_files_give_a_matrix_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("imatrix") / "m"
    write = data.draw(st.sampled_from([write_gguf, write_legacy]))
    write(path, made_up([TensorInfo("blk.0.x.weight", (4, 2, 3), F32), TensorInfo("y.weight", (8, 2), F32)]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        matrix = read_imatrix(path)
    except ForgeError:
        return
    assert all(np.isfinite(importance).all() for importance in matrix.importance.values())
