"""What the engine does when its sources change under it, and how it cuts the work."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_llama

from gguf_forge.conversion import convert
from gguf_forge.engine.tasks import RowSource, Shard, cut
from gguf_forge.errors import InputError, UsageError
from gguf_forge.expr import Constant, Stack, Transpose
from gguf_forge.file_plan import Observer
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.tensor_types import F32


class Meanwhile(Observer):
    """Does something to the checkpoint as soon as the work begins."""

    def __init__(self, act: object):
        self._act = act

    def begin(self, file: object) -> None:
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


def ranges(source: RowSource, values: int) -> list[tuple[int, int]]:
    info = TensorInfo("t.weight", source.expr.shape[::-1], F32)
    return [(t.start, t.stop) for t in cut(Shard(Path("x"), lay_out({}, [info]), (source,)), values)]


def test_tasks_cover_every_row_once_and_respect_borders() -> None:
    experts = Stack(tuple(Constant(np.zeros((5, 4), np.float32)) for _ in range(3)))
    weights = np.ones(12, np.float32)
    # of matrices as large as a task or larger, and where weights belong to a matrix, none is crossed
    assert ranges(RowSource(experts, F32, weights), 400) == [(0, 5), (5, 10), (10, 15)]
    assert ranges(RowSource(experts, F32), 8) == [
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
    # small ones share a task
    assert ranges(RowSource(experts, F32), 40) == [(0, 10), (10, 15)]
    # a matrix that is read by columns is taken whole
    assert ranges(RowSource(Transpose(experts), F32), 5) == [(0, 4), (4, 8), (8, 12)]
