from __future__ import annotations

import argparse
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_llama
from gguf import GGUFReader
from gguf.scripts import gguf_convert_endian
from raw_gguf import RawTensor, raw_gguf, u32_key, write

from gguf_forge import (
    UnsupportedError,
    UsageError,
    convert,
    dequantize,
    inspect_gguf,
    inspect_tensor,
    open_gguf,
    quantize,
)
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.toolbox.edit.splitting import split_gguf
from gguf_forge.toolbox.inspect.inspect import BlockPlace, matching_tensors, parse_block
from gguf_forge.types.tensor_type import TENSOR_TYPES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return convert(tiny_llama(folder), folder / "m.gguf", types="Q4_K_M")[0].path


def test_what_the_header_says(model: Path) -> None:
    """Compared with gguf-py's reader."""
    overview = inspect_gguf(model)
    reader = GGUFReader(model)
    assert (overview.paths, overview.version, overview.byte_order) == ((model,), 3, "<")
    assert overview.size == model.stat().st_size
    assert overview.data_offset == reader.data_offset
    assert overview.weights == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert [(t.name, t.info.shape, t.info.nbytes, t.offset) for t in overview.tensors] == [
        (t.name, tuple(t.shape.tolist()), t.n_bytes, t.data_offset) for t in reader.tensors
    ]
    assert {kind: share.tensors for kind, share in overview.types.items()} == {"Q4_K": 13, "Q6_K": 3, "F32": 5}
    assert list(overview.types)[-1] == "F32"
    bits = 8 * sum(t.n_bytes for t in reader.tensors) / overview.weights
    assert overview.bits_per_weight == pytest.approx(bits)


def test_a_split_is_one(model: Path, tmp_path: Path) -> None:
    first = split_gguf(model, tmp_path / "p", max_tensors=8, no_tensor_first=True).path
    whole, split = inspect_gguf(model), inspect_gguf(first)
    assert len(split.paths) == 4
    assert split.size == sum(path.stat().st_size for path in split.paths)
    assert split.data_offset is None
    assert [t.info for t in split.tensors] == [t.info for t in whole.tensors]
    assert {t.path for t in split.tensors} == set(split.paths[1:])
    name = whole.tensors[-1].name
    assert inspect_tensor(first, name).spread == inspect_tensor(model, name).spread


def test_a_file_without_tensors(tmp_path: Path) -> None:
    overview = inspect_gguf(write(tmp_path, raw_gguf([u32_key(b"a", 1)])))
    assert (overview.bits_per_weight, overview.weights, overview.data_offset, overview.types) == (0, 0, None, {})


def tensor_file(folder: Path, values: np.ndarray, kind: str = "F32") -> Path:
    """A file with the one tensor `a`."""
    data = quantize(values.astype(np.float32), kind).tobytes()
    return write(folder, raw_gguf((), [RawTensor(b"a", values.shape[::-1], TENSOR_TYPES[kind].id)], data + bytes(32)))


def test_the_values_of_a_tensor(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(0.5, 2, (40, 96)).astype(np.float32)
    values[3, :7] = 0
    values[5, 5], values[6, 6] = np.nan, -np.inf
    view = inspect_tensor(tensor_file(tmp_path, values), "a", bins=9)
    finite = values[np.isfinite(values)].astype(np.float64)
    spread = view.spread
    assert (spread.count, spread.nonfinite, spread.zeros) == (values.size, 2, 7)
    assert (spread.minimum, spread.maximum) == (finite.min(), finite.max())
    assert (spread.mean, spread.deviation) == (pytest.approx(finite.mean()), pytest.approx(finite.std()))
    assert len(spread.histogram) == len(view.edges) + 1 == 9
    edges = [-np.inf, *view.edges, np.inf]
    assert spread.histogram == tuple(np.histogram(finite, edges)[0])


def test_outliers_do_not_hide_the_others(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(0, 1, (64, 64))
    values[0, 0] = 1000
    view = inspect_tensor(tensor_file(tmp_path, values), "a")
    assert view.edges[-1] < 100
    assert view.spread.histogram[-1] == 1


def test_values_that_few_rows_do_not_show(tmp_path: Path) -> None:
    """All rows that are looked at for the bins are zero."""
    values = np.zeros((1000, 32))
    values[1] = 1
    view = inspect_tensor(tensor_file(tmp_path, values), "a")
    assert view.edges
    assert (view.spread.histogram[0], view.spread.histogram[-1]) == (999 * 32, 32)


def test_a_tensor_without_values(tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf((), [RawTensor(b"a", (32, 0))]))
    view = inspect_tensor(path, "a")
    assert (view.spread.count, view.edges, view.entry.bits_per_weight) == (0, (), 0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_tensor_of_one_value_has_no_bins(tmp_path: Path, value: float) -> None:
    view = inspect_tensor(tensor_file(tmp_path, np.full((2, 32), value)), "a", block=BlockPlace(1, 31))
    assert (view.edges, view.spread.histogram) == ((), ())
    assert view.block is not None
    assert view.block.values.tolist() == [value]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "F16"])
def test_a_block_of_it(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(2).normal(0, 1, (3, 768)).astype(np.float32)
    path = tensor_file(tmp_path, values, kind)
    size = TENSOR_TYPES[kind].block_elements
    block = inspect_tensor(path, "a", block=BlockPlace(2, 1)).block
    assert block is not None
    assert block.columns == (size, 2 * size)
    unpacked = dequantize(quantize(values, kind), kind)
    assert block.values.tolist() == unpacked[2, size : 2 * size].tolist()
    if kind == "Q8_0":
        assert block.levels is not None
        assert block.fields["qs"].tolist() == block.levels.tolist()
        assert (np.float32(block.fields["d"]) * block.fields["qs"]).tolist() == block.values.tolist()


def test_a_big_endian_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(0, 1, (4, 256)).astype(np.float32)
    path = tensor_file(tmp_path, values, "Q4_K")
    little = inspect_tensor(path, "a", block=BlockPlace(3, 0))
    monkeypatch.setattr("builtins.input", lambda question: "YES")
    gguf_convert_endian.convert_byteorder(GGUFReader(path, "r+"), argparse.Namespace(order="big", dry_run=False))
    big = inspect_tensor(path, "a", block=BlockPlace(3, 0))
    assert inspect_gguf(path).byte_order == ">"
    assert big.spread == little.spread
    assert big.block is not None
    assert little.block is not None
    assert big.block.values.tolist() == little.block.values.tolist()
    assert big.block.fields["d"] == little.block.fields["d"]


def test_what_is_not_there(model: Path) -> None:
    with pytest.raises(UsageError, match=r"no tensor is called blk\.0\.attn_r\.weight; there is blk\.0\.attn_"):
        inspect_tensor(model, "blk.0.attn_r.weight")
    with pytest.raises(UsageError, match=r"no tensor is called blk\.\*"):
        inspect_tensor(model, "blk.*")
    for place in (BlockPlace(0, 1), BlockPlace(256, 0), BlockPlace(-1, 0)):
        with pytest.raises(UsageError, match="it has 256 rows of 1 blocks"):
            inspect_tensor(model, "blk.0.attn_q.weight", block=place)
    with pytest.raises(UsageError, match="a histogram of 2 bins"):
        inspect_tensor(model, "blk.0.attn_q.weight", bins=2)


def test_a_type_that_is_only_computed_with(tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf((), [RawTensor(b"a", (256,), TENSOR_TYPES["Q8_K"].id)], bytes(320)))
    with pytest.raises(UnsupportedError, match="Q8_K"):
        inspect_tensor(path, "a")


def test_patterns(model: Path) -> None:
    with open_gguf(model) as gguf:
        found = matching_tensors(gguf, ["blk.1.attn_?.weight", "output_norm.weight", "blk.1.attn_q*"])
    assert [t.name for t in found] == [
        "output_norm.weight",
        "blk.1.attn_k.weight",
        "blk.1.attn_q.weight",
        "blk.1.attn_v.weight",
    ]


@pytest.mark.parametrize(
    ("text", "place"), [("0", (0, 0)), ("7", (2, 1)), ("2:1", (2, 1)), ("0:99", (0, 99)), ("1000", (333, 1))]
)
def test_names_of_blocks(text: str, place: tuple[int, int]) -> None:
    assert parse_block(text, TensorInfo("a", (96, 8), TENSOR_TYPES["Q8_0"])) == BlockPlace(*place)


@pytest.mark.parametrize("text", ["", "-1", "1:2:3", "a", "1:", "²"])
def test_what_is_no_block(text: str) -> None:
    with pytest.raises(UsageError, match="is not a block"):
        parse_block(text, TensorInfo("a", (96, 8), TENSOR_TYPES["Q8_0"]))


def test_a_huge_file_costs_next_to_nothing(tmp_path: Path) -> None:
    """A hundred gigabytes that the disk does not hold."""
    rows = 1 << 20
    path = write(tmp_path, raw_gguf((), [RawTensor(b"a", (25_600, rows))]))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 25_600 * rows * 4)
    tracemalloc.start()
    overview = inspect_gguf(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert overview.weights == 25_600 * rows
    with open_gguf(path) as gguf:
        assert gguf.tensors[0].nbytes > 100_000_000_000
