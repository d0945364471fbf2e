"""Files made piece by piece have the bytes of files made in one go."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_forge.engine.batches import RowSource, Shard
from gguf_forge.engine.forge import forge
from gguf_forge.engine.pieces import Piece, cut_pieces, shard_of
from gguf_forge.errors import InputError, UsageError
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import string
from gguf_forge.run_settings import RunSettings
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import RowRange, Transpose
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.tensor_type import F32, TensorType

SHAPES = ((32,), (7, 32), (3, 5, 32), (4, 64), (1, 1, 96), (0, 32))


def random_source(shape: tuple[int, ...], how: str, seed: int) -> RowSource:
    random = np.random.default_rng(seed)
    expr: TensorExpr = Constant(random.normal(size=shape).astype(np.float32))
    if how == "transposed" and len(shape) > 1 and shape[-2] % 32 == 0:
        expr = Transpose(expr)
    if how != "weighed" or not np.prod(shape):
        return RowSource(expr, F32)
    n_matrices = int(np.prod(shape[:-2])) if len(shape) > 2 else 1
    return RowSource(expr, F32, np.abs(random.normal(size=n_matrices * shape[-1])).astype(np.float32))


def file_of(name: str, sources: Sequence[RowSource], kinds: Sequence[str]) -> Shard:
    infos = [
        TensorInfo(f"t{number}.weight", source.expr.shape[::-1], TensorType.named(kind))
        for number, (source, kind) in enumerate(zip(sources, kinds, strict=True))
    ]
    return Shard(Path(name), lay_out({"general.name": string(name)}, infos), tuple(sources))


TENSORS = st.tuples(
    st.sampled_from((*SHAPES, (64, 32), (2, 32, 64))),
    st.sampled_from(["plain", "weighed", "transposed"]),
    st.sampled_from(["F32", "Q8_0", "Q4_0", "IQ4_NL"]),
)


@settings(deadline=None)
@given(
    files=st.lists(st.lists(TENSORS, max_size=5), min_size=1, max_size=3),
    n_tasks=st.integers(1, 12),
    values=st.sampled_from([1, 40, 200, 1 << 20]),
)
def test_pieces_make_the_files(
    files: list[list[tuple[tuple[int, ...], str, str]]],
    n_tasks: int,
    values: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    shards = [
        file_of(
            f"{number}",
            [random_source(shape, how, seed) for seed, (shape, how, _) in enumerate(tensors)],
            [kind for *_, kind in tensors],
        )
        for number, tensors in enumerate(files)
    ]
    tasks = cut_pieces(shards, n_tasks, values=values)
    assert len(tasks) == n_tasks
    made = [bytearray(shard.layout.size) for shard in shards]
    covered = [0] * len(shards)
    for number, piece in enumerate(chain.from_iterable(tasks)):
        assert piece.start == covered[piece.output]
        covered[piece.output] = piece.stop
        part = shard_of(piece, shards[piece.output], folder / f"part-{number}")
        forge([part], RunSettings(threads=1))
        made[piece.output][piece.start : piece.stop] = part.path.read_bytes()
    for shard, data in zip(shards, made, strict=True):
        path = folder / f"whole-{shard.path}"
        forge([Shard(path, shard.layout, shard.sources)], RunSettings(threads=1))
        assert bytes(data) == path.read_bytes()


def zeros(name: str, *rows: int) -> Shard:
    """A file of F32 matrices of 8 columns."""
    return file_of(name, [random_source((n, 8), "plain", 0) for n in rows], ["F32"] * len(rows))


def weights_of(shards: Sequence[Shard], task: Sequence[Piece]) -> int:
    pieces = [shard_of(piece, shards[piece.output], Path("x")) for piece in task]
    return sum(placed.info.n_elements for piece in pieces for placed in piece.layout.tensors)


def test_tasks_are_about_equal() -> None:
    shards = [zeros("a", 100, 3, 500), zeros("b", 197)]
    for n_tasks in (3, 7, 100):
        weights = [weights_of(shards, task) for task in cut_pieces(shards, n_tasks, values=8)]
        assert sum(weights) == 800 * 8
        assert max(weights) - min(weights) <= 16


def test_files_are_not_cut_where_there_are_enough() -> None:
    shards = [zeros(name, 100) for name in "abcdef"]
    whole = [Piece(number, 0, shard.layout.size) for number, shard in enumerate(shards)]
    assert cut_pieces(shards) == cut_pieces(shards, 6) == tuple((piece,) for piece in whole)
    assert cut_pieces(shards, 3) == (tuple(whole[:2]), tuple(whole[2:4]), tuple(whole[4:]))
    assert cut_pieces(shards, 1) == (tuple(whole),)


def test_more_tasks_than_rows_leave_some_without_work() -> None:
    tasks = cut_pieces([zeros("a", 3)], 10)
    assert len(tasks) == 10
    assert [task for task in tasks if task] == [(Piece(0, 0, zeros("a", 3).layout.size),)]


@pytest.mark.parametrize("n_tasks", [0, -1, 100_001])
def test_numbers_of_tasks_that_make_no_sense(n_tasks: int) -> None:
    with pytest.raises(UsageError, match="cannot be cut into"):
        cut_pieces([zeros("a", 3)], n_tasks)


def test_experts_with_importance_of_their_own_stay_whole() -> None:
    shard = file_of("a", [random_source((4, 6, 32), "weighed", 1)], ["Q8_0"])
    (placed,) = shard.layout.tensors
    expert = placed.info.nbytes // 4
    borders = {piece.start - placed.offset for task in cut_pieces([shard], 7, values=1) for piece in task}
    assert {border % expert for border in borders if border > 0} == {0}


def test_an_error_says_which_rows(tmp_path: Path) -> None:
    values = np.ones((100, 32), np.float32)
    values[70, 3] = np.inf
    shard = file_of("a", [RowSource(Constant(values), F32)], ["Q8_0"])
    ((first,), (second,)) = cut_pieces([shard], 2, values=32)
    forge([shard_of(first, shard, tmp_path / "first")], RunSettings())
    with pytest.raises(InputError, match=r"t0\.weight\[50:100\]: row 20, column 3: the weight is infinite"):
        forge([shard_of(second, shard, tmp_path / "second")], RunSettings())


def test_ranges_of_rows_are_matrices_where_they_can_be() -> None:
    stacked = Constant(np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2))
    assert RowRange(stacked, 4, 12).shape == (2, 4, 2)
    assert RowRange(stacked, 3, 12).shape == (9, 2)
    assert RowRange(stacked, 5, 9).rows(1, 3).tolist() == stacked.rows(6, 8).tolist()
    for start, stop in ((-1, 3), (5, 4), (0, 13)):
        with pytest.raises(InputError, match="has no rows"):
            RowRange(stacked, start, stop)
