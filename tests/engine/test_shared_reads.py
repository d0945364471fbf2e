"""Bytes that several batches read: which ones, and in which order the batches come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from counting_source import Counting

from gguf_forge.engine.batches import Batch
from gguf_forge.engine.shared_reads import in_order, read_again
from gguf_forge.storage.read_once import ReadOnce
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.merged import Merged
from gguf_forge.tensors.row_maps import Reorder, Slice, Transpose, halves, permute_rope
from gguf_forge.tensors.stored import Stored
from gguf_forge.types.tensor_type import F32

ROWS, COLUMNS = 64, 256


@pytest.fixture
def source(tmp_path: Path) -> Counting:
    path = tmp_path / "weights"
    path.write_bytes(np.random.default_rng(1).normal(0, 1, 1 << 20).astype("<f4").tobytes())
    return Counting(path)


def stored(source: Counting, *shape: int, at: int = 0) -> Stored:
    return Stored("w", source, at, shape, F32)


def whole(*exprs: TensorExpr) -> list[Batch]:
    return [Batch(expr, 0, expr.n_rows, ()) for expr in exprs]


def run(*exprs: TensorExpr, n_rows: int = 4, capacity: int = 1 << 22) -> list[TensorExpr]:
    """Takes all rows of expressions, a few at a time. Gives the expressions in the order of their batches."""

    def cut_one(batch: Batch) -> list[Batch]:
        return [Batch(batch.expr, row, min(row + n_rows, batch.stop), ()) for row in range(0, batch.stop, n_rows)]

    again = read_again(whole(*exprs))
    order = list(in_order(whole(*exprs), again, cut_one))
    with ReadOnce(again, capacity).serving():
        for batch in order:
            batch.expr.rows(batch.start, batch.stop)
    return [batch.expr for batch in order]


def test_pieces_that_lie_one_behind_the_other_are_not_kept(source: Counting) -> None:
    first, second = halves(stored(source, ROWS, COLUMNS), -2)
    assert read_again(whole(first, second, permute_rope(first, 4))) != ()
    assert read_again(whole(first, second)) == ()
    assert run(first, second) == [first] * 8 + [second] * 8


def test_large_matrices_that_are_cut_are_not_kept(source: Counting) -> None:
    experts = stored(source, 4, 2 * 256, 256)
    gate, up = halves(experts, -2)
    assert read_again(whole(gate, up)) == ()
    assert gate.stored_runs(0, 512) == (experts.stored_runs(0, 256)[0], experts.stored_runs(512, 768)[0])
    assert gate.stored_runs(250, 260) == (experts.stored_runs(250, 256)[0], experts.stored_runs(512, 516)[0])
    run(gate, up)
    assert set(source.times[: 2 << 20]) == {1}


@pytest.mark.parametrize(
    "pieces",
    [
        lambda x: [Slice(x, -2, 0, ROWS, 2), Slice(x, -2, 1, ROWS, 2)],
        lambda x: halves(x, -1),
        lambda x: halves(Stored("w", x.source, 0, (4, 16, COLUMNS), F32), -2),
        lambda x: [Transpose(half) for half in halves(x, -1)],
        lambda x: [permute_rope(x, 2), x],
        lambda x: [Reorder(Stored("w", x.source, 0, (512, 32), F32), -2, (2, 256), (1, 0))],
    ],
    ids=["every second row", "columns", "small matrices", "transposed", "permuted", "short rows"],
)
def test_pieces_that_lie_between_one_another_are_read_once(source: Counting, pieces: object) -> None:
    run(*pieces(stored(source, ROWS, COLUMNS)))  # type: ignore[operator]
    assert set(source.times[: 4 * ROWS * COLUMNS]) == {1}


def test_rows_that_move_within_one_tensor_are_read_alone(source: Counting) -> None:
    permuted = permute_rope(stored(source, ROWS, COLUMNS), 1)
    assert read_again(whole(permuted)) == ()
    run(permuted)
    assert set(source.times[: 4 * ROWS * COLUMNS]) == {1}


def test_factors_and_scales_serve_all_rows(source: Counting) -> None:
    weight = stored(source, ROWS, COLUMNS)
    b, a = stored(source, ROWS, 8, at=1 << 18), stored(source, 8, COLUMNS, at=1 << 19)
    scales = stored(source, 4, 4, at=1 << 20)
    run(Merged(weight, a, b, 0.5), n_rows=3)
    run(Scaled(Stored("c", source, 1 << 21, (ROWS, COLUMNS), F32), scales, 16, 64))
    for at, n in ((0, ROWS * COLUMNS), (1 << 18, ROWS * 8), (1 << 19, 8 * COLUMNS), (1 << 20, 16)):
        assert set(source.times[at : at + 4 * n]) == {1}


def test_those_that_read_the_same_bytes_come_side_by_side(source: Counting) -> None:
    fused, other = stored(source, 8, COLUMNS), stored(source, 8, COLUMNS, at=1 << 20)
    even, odd = Slice(fused, -2, 0, 8, 2), Slice(fused, -2, 1, 8, 2)
    stack = Stack((other, other))
    order = run(even, stack, odd, n_rows=2)
    assert [id(expr) for expr in order[:4]] == [id(even), id(odd)] * 2
    assert order[4:] == [stack] * 8
