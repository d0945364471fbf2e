"""What the engine does when its sources change under it, and how it cuts the work."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_llama

from gguf_forge import convert, quantize_gguf, split_gguf
from gguf_forge.engine import forge as engine
from gguf_forge.engine.batches import Batch, RowSource, Shard, cut, whole_tensors
from gguf_forge.engine.forge import forge
from gguf_forge.engine.shared_reads import in_order
from gguf_forge.errors import InputError, UsageError
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.opened import open_gguf
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.kernels.rows import quantize
from gguf_forge.planning.file_plan import Observer
from gguf_forge.recipe import Options
from gguf_forge.run_settings import RunSettings
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.row_maps import Transpose
from gguf_forge.tensors.stored import Constant, Stored
from gguf_forge.types.tensor_type import F32, TensorType


class Meanwhile(Observer):
    """Does something to the checkpoint as soon as the work begins."""

    def __init__(self, act: object):
        self._act = act

    def begin(self, files: object) -> None:
        self._act()  # type: ignore[operator]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_source_that_is_written_to_is_noticed(tmp_path: Path, threads: int) -> None:
    model = tiny_llama(tmp_path)
    weights = model / "model.safetensors"
    with pytest.raises(InputError, match=r"model\.safetensors: the file changed while it was read"):
        convert(model, tmp_path / "out.gguf", threads=threads, observer=Meanwhile(lambda: os.utime(weights, (1, 1))))
    assert [path.name for path in tmp_path.iterdir()] == ["Tiny"]


def test_a_source_that_shrinks_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    weights = model / "model.safetensors"
    with pytest.raises(InputError, match=r"model\.safetensors: the file became shorter while it was read"):
        convert(model, tmp_path / "out.gguf", observer=Meanwhile(lambda: os.truncate(weights, 4096)))
    assert [path.name for path in tmp_path.iterdir()] == ["Tiny"]


def test_a_source_that_is_replaced_is_noticed(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    weights = model / "model.safetensors"
    (tmp_path / "other").write_bytes(weights.read_bytes())
    with pytest.raises(InputError, match="changed while it was read"):
        convert(model, tmp_path / "out.gguf", observer=Meanwhile(lambda: (tmp_path / "other").replace(weights)))


def test_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    for threads in (1, 2, 7):
        convert(model, tmp_path / f"{threads}.gguf", threads=threads)
    assert len({(tmp_path / f"{threads}.gguf").read_bytes() for threads in (1, 2, 7)}) == 1


def test_threads_must_be_some(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="threads must be at least 1, not 0"):
        convert(tiny_llama(tmp_path), tmp_path / "out.gguf", threads=0)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_bytes_do_not_depend_on_the_order_of_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    model = tiny_llama(tmp_path)
    types = ["Q4_K_M", "Q8_0"]
    usual = [result.path.read_bytes() for result in convert(model, tmp_path / "{ftype}.gguf", types=types)]
    monkeypatch.setattr(engine, "BATCH_VALUES", 5000)
    monkeypatch.setattr(engine, "in_order", lambda *work: _shuffled(in_order(*work)))
    other = convert(model, tmp_path / "other-{ftype}.gguf", types=types, threads=threads)
    assert [result.path.read_bytes() for result in other] == usual


def _shuffled(batches: Iterable[Batch]) -> Iterator[Batch]:
    shuffled = list(batches)
    assert len(shuffled) > 100
    random.Random(7).shuffle(shuffled)
    return iter(shuffled)


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """By file name, what is read of the weights."""
    counted: Counter[str] = Counter()
    read = SourceFile.read

    def counting(self: SourceFile, offset: int, nbytes: int, *, at: int = 0) -> object:
        if threading.current_thread() is not threading.main_thread():  # which reads headers
            counted[self.path.name] += nbytes
        return read(self, offset, nbytes, at=at)

    monkeypatch.setattr(SourceFile, "read", counting)
    return counted


def test_several_files_come_from_one_reading(tmp_path: Path, bytes_read: Counter[str]) -> None:
    model = tiny_llama(tmp_path)
    types = ["Q4_K_M", "Q4_K_S", "Q8_0", "IQ4_XS", "F16", "BF16", "F32"]
    together = convert(model, tmp_path / "all-{ftype}.gguf", types=types)
    assert bytes_read == {"model.safetensors": together[0].file.source_bytes}
    for result, kind in zip(together, types, strict=True):
        (alone,) = convert(model, tmp_path / "alone.gguf", types=kind, overwrite=True)
        assert result.path.read_bytes() == alone.path.read_bytes(), kind


def test_several_files_come_from_one_reading_of_a_gguf_file(tmp_path: Path, bytes_read: Counter[str]) -> None:
    (base,) = convert(tiny_llama(tmp_path), tmp_path / "base.gguf", types="Q8_0")
    options, types = Options(allow_requantize=True), ["COPY", "Q4_0", "F16", "Q4_K"]
    bytes_read.clear()
    together = quantize_gguf(base.path, tmp_path / "all-{ftype}.gguf", types=types, options=options)
    assert bytes_read == {"base.gguf": sum(info.nbytes for info in base.file.tensors)}
    for result, kind in zip(together, types, strict=True):
        (alone,) = quantize_gguf(base.path, tmp_path / "alone.gguf", types=kind, options=options, overwrite=True)
        assert result.path.read_bytes() == alone.path.read_bytes(), kind


@pytest.mark.parametrize("copying", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_what_stays_as_it_is_is_copied(
    tmp_path: Path, bytes_read: Counter[str], monkeypatch: pytest.MonkeyPatch, direct: bool, copying: bool
) -> None:
    """By the system, where it can, there is no way past the page cache, and the values need not be looked at."""
    if not direct:
        monkeypatch.setattr(disk, "open_direct", _not_here)
    if not copying:
        monkeypatch.setattr(disk, "copy_range", _not_here)
    (base,) = convert(tiny_llama(tmp_path), tmp_path / "base.gguf", types="BF16")
    assert bytes_read["model.safetensors"] == base.file.source_bytes
    (copy,) = quantize_gguf(base.path, tmp_path / "copy.gguf", types="COPY")
    assert data_of(copy.path) == data_of(base.path)
    everything = sum(info.nbytes for info in base.file.tensors)
    assert bytes_read["base.gguf"] == everything
    split = split_gguf(copy.path, tmp_path / "part", max_tensors=1000)
    assert data_of(split.path) == data_of(base.path)
    assert bytes_read["copy.gguf"] == (everything if direct or not copying else 0)


def _not_here(*arguments: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def data_of(path: Path) -> dict[str, bytes]:
    with open_gguf(path) as file:
        return {tensor.name: tensor.data().tobytes() for tensor in file.tensors}


def test_experts_are_copied_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(np.arange(3000, dtype=np.float32).tobytes())
    with SourceFile(tmp_path / "source") as source:
        # the last one first, and unused bytes between them
        parts = tuple(Stored("t", source, offset, (5, 32), F32) for offset in (8000, 0, 4000))
        experts = Stack(parts)
        layout = lay_out({}, [TensorInfo("t", experts.shape[::-1], F32)])
        forge([Shard(tmp_path / "out", layout, (RowSource(experts, F32),))], RunSettings(buffer=3 * 4 * 32))
        assert (tmp_path / "out").read_bytes()[layout.data_offset :] == experts.rows(0, 15).tobytes()
        assert Transpose(experts).stored_runs(0, 4) is None
        assert Stack((Transpose(parts[0]),)).stored_runs(0, 4) is None


def test_importance_by_expert_does_not_disturb_files_without(tmp_path: Path) -> None:
    """A batch of both files ends where an expert does, for the sake of the one."""
    values = np.random.default_rng(1).normal(size=(3, 8, 256)).astype(np.float32)
    experts = Stack(tuple(map(Constant, values)))
    importance = np.abs(np.random.default_rng(2).normal(size=3 * 256)).astype(np.float32)
    sources = {"plain": RowSource(experts, F32), "weighed": RowSource(experts, F32, importance)}
    kind = TensorType.named("Q4_K")
    layout = lay_out({}, [TensorInfo("t.weight", (256, 8, 3), kind)])
    forge([Shard(tmp_path / name, layout, (source,)) for name, source in sources.items()], RunSettings())
    for name, by_expert in (("plain", [None] * 3), ("weighed", list(importance.reshape(3, 256)))):
        packed = [quantize(matrix, kind, importance=given) for matrix, given in zip(values, by_expert, strict=True)]
        assert (tmp_path / name).read_bytes()[layout.data_offset :] == np.concatenate(packed).tobytes()


def test_one_error_ends_all_threads_and_all_files(tmp_path: Path) -> None:
    values = np.ones((4000, 256), np.float32)
    values[17, 3] = np.inf
    layout = lay_out({}, [TensorInfo("t.weight", (256, 4000), TensorType.named("Q8_0"))])
    shards = [Shard(tmp_path / name, layout, (RowSource(Constant(values), F32),)) for name in ("a", "b")]
    with pytest.raises(InputError, match=r"t\.weight: row 17, column 3: the weight is infinite or not a number"):
        forge(shards, RunSettings(threads=3, buffer=12 << 12))
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_reading_names_the_tensor(tmp_path: Path) -> None:
    scales = Constant(np.full((4, 1), np.nan, np.float32))
    expr = Scaled(Constant(np.ones((4, 32), np.float32)), scales, 1, 32)
    layout = lay_out({}, [TensorInfo("t.weight", (32, 4), F32)])
    with pytest.raises(InputError, match=r"t\.weight: a scale or zero point is infinite or not a number"):
        forge([Shard(tmp_path / "out", layout, (RowSource(expr, F32),))], RunSettings())


def ranges(*sources: RowSource, values: int) -> list[tuple[int, int]]:
    """What the batches of files are that have one tensor each, all of the same expression."""
    info = TensorInfo("t.weight", sources[0].expr.shape[::-1], F32)
    shards = [Shard(Path("x"), lay_out({}, [info]), (source,)) for source in sources]
    return [(batch.start, batch.stop) for batch in cut(whole_tensors(shards), values, share=1 << 30, total=1 << 30)]


def test_batches_cover_every_row_once_and_respect_borders() -> None:
    experts = Stack(tuple(Constant(np.zeros((5, 4), np.float32)) for _ in range(3)))
    importance = np.ones(12, np.float32)
    # of matrices as large as a batch or larger, and where importance belongs to a matrix, none is crossed
    assert ranges(RowSource(experts, F32, importance), values=400) == [(0, 5), (5, 10), (10, 15)]
    assert ranges(RowSource(experts, F32), RowSource(experts, F32, importance), values=400) == [
        (0, 5),
        (5, 10),
        (10, 15),
    ]
    assert ranges(RowSource(experts, F32), values=8) == [
        (0, 2),
        (2, 4),
        (4, 5),
        (5, 7),
        (7, 9),
        (9, 10),
        (10, 12),
        (12, 14),
        (14, 15),
    ]
    # small ones share a batch
    assert ranges(RowSource(experts, F32), values=40) == [(0, 10), (10, 15)]
    # a matrix that is read by columns is taken whole
    assert ranges(RowSource(Transpose(experts), F32), values=5) == [(0, 4), (4, 8), (8, 12)]


def test_tensors_of_one_expression_are_one_piece_of_work() -> None:
    shared, other = (RowSource(Constant(np.zeros((5, 4), np.float32)), F32) for _ in range(2))
    infos = [TensorInfo(name, (4, 5), F32) for name in ("a", "b")]
    shards = [Shard(Path("x"), lay_out({}, infos), pair) for pair in ((shared, other), (other, shared))]
    found = [[(target.output, target.placed.info.name) for target in batch.targets] for batch in whole_tensors(shards)]
    assert found == [[(0, "a"), (1, "b")], [(0, "b"), (1, "a")]]


def test_empty_tensors_are_nothing_to_do() -> None:
    source = RowSource(Constant(np.zeros((0, 4), np.float32)), F32)
    assert whole_tensors([Shard(Path("x"), lay_out({}, [TensorInfo("a", (4, 0), F32)]), (source,))]) == ()
