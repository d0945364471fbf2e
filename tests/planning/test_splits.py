"""Splits of float types against gguf-py's writer; those of quantized types are pinned in tests/quantized.json."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import Split, UsageError, convert, open_gguf, plan
from gguf_forge.engine.batches import RowSource
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import string
from gguf_forge.planning.file_plan import TensorChoice
from gguf_forge.planning.splits import split_as_converter, split_as_gguf_split
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tensors.stored import Stored
from gguf_forge.types.tensor_type import F32

BOUNDS = st.none() | st.integers(1, 12)


def tensors(sizes: list[int]) -> list[TensorChoice]:
    """Vectors of so many floats; nothing reads them, whatever file they are said to be in."""
    file = SourceFile(Path(__file__))
    return [
        TensorChoice(info, RowSource(Stored(info.name, file, 0, info.shape, F32), F32), info.name)
        for info in (TensorInfo(f"t{number}.weight", (size,), F32) for number, size in enumerate(sizes))
    ]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=20),
    max_size=st.none() | st.integers(1, 300),
    max_tensors=BOUNDS,
    no_tensor_first=st.booleans(),
)
def test_float_types_are_split_as_gguf_py_does(
    sizes: list[int],
    max_size: int | None,
    max_tensors: int | None,
    no_tensor_first: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("parts") / "m.gguf"
    writer = GGUFWriter(
        path,
        "llama",
        split_max_tensors=max_tensors or 0,
        split_max_size=max_size or 0,
        small_first_shard=no_tensor_first,
    )
    for number, size in enumerate(sizes):
        writer.add_tensor(f"t{number}.weight", np.zeros(size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    split = Split(False, max_size, max_tensors, no_tensor_first)
    shards = split_as_converter(path, {"general.architecture": string("llama")}, tensors(sizes), split)
    made = {shard.path.name: shard.layout.header.ljust(shard.layout.size, b"\0") for shard in shards}
    assert made == {file.name: file.read_bytes() for file in path.parent.iterdir()}


@given(
    sizes=st.lists(st.integers(1, 30), max_size=20),
    max_size=st.none() | st.integers(1, 300),
    max_tensors=BOUNDS,
    no_tensor_first=st.booleans(),
)
def test_parts_have_every_tensor_in_order_and_keep_to_the_bounds(
    sizes: list[int], max_size: int | None, max_tensors: int | None, no_tensor_first: bool
) -> None:
    split = Split(False, max_size, max_tensors, no_tensor_first)
    shards = split_as_gguf_split(Path("m.gguf"), {}, tensors(sizes), split)
    names = [[placed.info.name for placed in shard.layout.tensors] for shard in shards]
    assert list(chain.from_iterable(names)) == [f"t{number}.weight" for number in range(len(sizes))]
    assert (names[0] == []) == (no_tensor_first or not sizes)
    assert all(names[1:]) or not sizes
    for shard, members in zip(shards, names, strict=True):
        assert len(members) <= (max_tensors or len(sizes))
        size = shard.layout.size - shard.layout.data_offset
        assert max_size is None or size <= max_size or len(members) == 1


def test_without_a_bound_quantized_types_have_parts_as_llama_gguf_split_makes_them() -> None:
    shards = split_as_gguf_split(Path("m.gguf"), {}, tensors([1] * 300), Split(no_tensor_first=True))
    assert [len(shard.sources) for shard in shards] == [0, 128, 128, 44]


def test_more_parts_than_can_be_counted() -> None:
    many = tensors([1]) * 65_535
    with pytest.raises(UsageError, match="65,536 parts"):
        split_as_converter(Path("m.gguf"), {}, many, Split(max_tensors=1, no_tensor_first=True))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(FAMILIES / "llama3-bpe", tmp_path_factory.mktemp("model") / "hf")


PRE = {"pre_tokenizer": read_description(FAMILIES / "llama3-bpe").pre_tokenizer}


def test_where_one_part_is_enough(model: Path, tmp_path: Path) -> None:
    """The converter then writes an ordinary file, llama-gguf-split the only part of a split."""
    floating, quantized = plan(
        model, tmp_path / "m-{ftype}.gguf", types=["F16", "Q8_0"], split=Split(max_size=10**9), **PRE
    )
    assert floating.path.name == "m-f16.gguf"
    assert floating.shards[0].layout == plan(model, types="F16", **PRE)[0].shards[0].layout
    assert floating.warnings == ("m-f16.gguf is not split: one part holds it all",)
    assert (quantized.path.name, quantized.warnings) == ("m-q8_0-00001-of-00001.gguf", ())


def test_a_tensor_larger_than_the_bound_has_a_part_of_its_own(model: Path, tmp_path: Path) -> None:
    (file,) = plan(model, types="BF16", split=Split(max_size=100_000), **PRE)
    large = [shard for shard in file.shards if shard.layout.size - shard.layout.data_offset > 100_000]
    assert large
    assert all(len(shard.sources) == 1 for shard in large)


@pytest.mark.parametrize("kind", ["BF16", "Q4_K_M"])
def test_parts_together_are_the_whole_file(kind: str, model: Path, tmp_path: Path) -> None:
    (whole,) = convert(model, tmp_path / "whole.gguf", types=kind, **PRE)
    (parts,) = convert(model, tmp_path / "parts.gguf", types=kind, split=Split(max_tensors=4), **PRE)
    assert len(list(tmp_path.iterdir())) == 1 + len(parts.file.shards) > 2
    with open_gguf(whole.path) as wanted, open_gguf(parts.path) as made:
        assert {t.name: t.data().tobytes() for t in made.tensors} == {
            t.name: t.data().tobytes() for t in wanted.tensors
        }
        added = ["split.no", "split.count", "split.tensors.count"]
        assert sorted(made.metadata) == sorted([*wanted.metadata, *added])


def test_names_of_two_types_are_told_apart_whatever_their_number_of_parts(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 files, but only one output name"):
        plan(model, tmp_path / "m.gguf", types=["BF16", "Q4_K_M"], split=Split(max_size=500_000), **PRE)


@pytest.mark.parametrize("given", [{"split": Split(keep=True)}, {"split": Split(max_tensors=1), "vocab_only": True}])
def test_what_cannot_be_split(given: dict[str, object], model: Path) -> None:
    with pytest.raises(UsageError, match="leave out the options of the split"):
        plan(model, **given, **PRE)
