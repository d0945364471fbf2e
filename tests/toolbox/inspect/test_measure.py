"""Statistics of rows, against the same ones computed at once."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gguf_forge import UsageError, dequantize, quantize
from gguf_forge.kernels.rows import as_float32
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tensors.row_maps import Transpose
from gguf_forge.tensors.stored import Constant, Stored
from gguf_forge.toolbox.inspect import measure
from gguf_forge.toolbox.inspect.measure import distance_between, level_use, spread_of
from gguf_forge.toolbox.inspect.rows_of import in_order, row_ranges, with_short_rows
from gguf_forge.types.tensor_type import F32, TENSOR_TYPES, TensorType

_MATRICES = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(-1e6, 1e6, width=32),
)


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several ranges, whatever the size."""
    monkeypatch.setattr(row_ranges, "__kwdefaults__", {"values": 40, "by_matrix": False})


def stored(folder: Path, packed: np.ndarray, name: str, shape: tuple[int, ...]) -> Stored:
    path = folder / f"{name}.bin"
    path.write_bytes(packed.tobytes())
    return Stored("t", SourceFile(path), 0, shape, TENSOR_TYPES[name])


@given(_MATRICES)
@example(np.repeat(np.array([[0], [1e6]], np.float32), 12, axis=0) * np.ones((1, 10), np.float32))
@example(np.full((9, 12), 1e6, np.float32))
@example(np.array([[1e6, np.nextafter(np.float32(1e6), np.float32(2e6))]] * 60, np.float32))
def test_spread(values: np.ndarray) -> None:
    edges = [-3.0, 0.0, 5.5]
    found = spread_of(Constant(values), edges=edges, threads=2)
    exact = values.astype(np.float64)
    assert (found.count, found.nonfinite, found.zeros) == (values.size, 0, int((values == 0).sum()))
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.mean == pytest.approx(exact.mean(), abs=1e-6)
    assert found.deviation == pytest.approx(exact.std(), rel=1e-6, abs=1e-9)
    assert found.histogram == (
        int((exact < -3).sum()),
        int(((exact >= -3) & (exact < 0)).sum()),
        int(((exact >= 0) & (exact < 5.5)).sum()),
        int((exact >= 5.5).sum()),
    )


def test_spread_leaves_out_what_is_not_finite() -> None:
    found = spread_of(Constant(np.array([[1, np.nan], [np.inf, 3]], np.float32)))
    assert (found.count, found.nonfinite, found.minimum, found.maximum, found.mean) == (4, 2, 1, 3, 2)
    nothing = spread_of(Constant(np.full((1, 4), np.nan, np.float32)))
    assert (nothing.nonfinite, nothing.minimum, nothing.maximum, nothing.mean, nothing.deviation) == (4, 0, 0, 0, 0)


def test_edges_must_rise() -> None:
    with pytest.raises(UsageError, match="rise"):
        spread_of(Constant(np.ones((1, 4), np.float32)), edges=[1, 1])


@given(_MATRICES, st.integers(0, 2**32))
def test_distance(reference: np.ndarray, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(reference.shape).astype(np.float32)
    measured = reference + noise
    found = distance_between(Constant(reference), Constant(measured), threads=2)
    a, b = reference.astype(np.float64), measured.astype(np.float64)
    error = b - a
    assert found.rmse == pytest.approx(math.sqrt((error**2).mean()))
    assert found.bias == pytest.approx(error.mean(), abs=1e-9)
    assert found.max_error == np.abs(error).max()
    assert found.max_error_at is None or abs(error[found.max_error_at]) == found.max_error
    assert found.differing == np.count_nonzero(error)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    assert found.cosine == pytest.approx((a * b).sum() / norms if norms else float(found.differing == 0), abs=1e-9)


def test_distance_of_quantized_rows(tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((40, 512)).astype(np.float32)
    values[17, 300] = 90
    packed = quantize(values, "Q4_K")
    measured = stored(tmp_path, packed, "Q4_K", (40, 512))
    found = distance_between(Constant(values), measured)
    error = dequantize(packed, "Q4_K").astype(np.float64) - values
    by_block = np.sqrt((error.reshape(-1, 256) ** 2).mean(axis=1))
    assert found.worst is not None
    assert (found.worst.row, found.worst.block) == (17, 1)
    assert found.worst.rmse == pytest.approx(by_block.max())
    assert found.relative == pytest.approx(np.sqrt((error**2).sum() / (values.astype(np.float64) ** 2).sum()))
    assert found.snr == pytest.approx(-20 * math.log10(found.relative))


def test_results_do_not_depend_on_threads(tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((200, 256)).astype(np.float32)
    measured = stored(tmp_path, quantize(values, "Q6_K"), "Q6_K", (200, 256))
    assert len({distance_between(Constant(values), measured, threads=n) for n in (1, 2, 5)}) == 1


def test_distance_of_equal_tensors() -> None:
    same = Constant(np.ones((3, 5), np.float32))
    found = distance_between(same, same)
    assert (found.rmse, found.cosine, found.snr, found.relative, found.worst) == (0, 1, None, 0, None)


def test_distance_leaves_out_what_is_not_finite() -> None:
    reference = Constant(np.array([[1, np.inf, 3, np.nan]], np.float32))
    measured = Constant(np.array([[1, 2, 5, np.nan]], np.float32))
    found = distance_between(reference, measured)
    assert (found.count, found.nonfinite, found.differing, found.max_error, found.max_error_at) == (4, 2, 1, 2, (0, 2))


def test_distance_from_zero() -> None:
    zero, one = Constant(np.zeros((1, 4), np.float32)), Constant(np.ones((1, 4), np.float32))
    found = distance_between(zero, one)
    assert (found.relative, found.snr, found.cosine) == (None, None, 0)


def test_other_shapes() -> None:
    with pytest.raises(UsageError, match=r"\(2, 4\) and \(4, 2\)"):
        distance_between(Constant(np.zeros((2, 4), np.float32)), Constant(np.zeros((4, 2), np.float32)))


def test_a_tensor_read_by_columns() -> None:
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    found = distance_between(Transpose(Constant(values)), Constant(values.transpose(0, 2, 1).copy()))
    assert found.differing == 0 and found.count == 60


def test_level_use(tmp_path: Path) -> None:
    values = np.tile(np.array([-8, 7, 0, 1], np.float32), (4, 64))
    use = level_use(stored(tmp_path, quantize(values, "Q4_0"), "Q4_0", (4, 256)))
    assert use is not None
    assert {n: count for n, count in enumerate(use.counts) if count} == {0: 256, 8: 256, 9: 256, 15: 256}
    assert use.at_extremes == 0.5
    assert level_use(Constant(values)) is None


@pytest.mark.parametrize(("name", "dtype"), [("I8", "<i1"), ("I32", "<i4"), ("F64", "<f8"), ("BF16", None)])
def test_numbers_that_are_not_packed(name: str, dtype: str | None, tmp_path: Path) -> None:
    values = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
    packed = quantize(values, name) if dtype is None else values.astype(dtype)
    rows = stored(tmp_path, packed, name, (3, 4)).rows(0, 3)
    np.testing.assert_array_equal(as_float32(rows, TensorType.named(name)), values)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple), st.integers(1, 50), st.booleans(), st.booleans())
def test_ranges_cover_every_row_once(shape: tuple[int, ...], values: int, by_matrix: bool, turned: bool) -> None:
    expr = Constant(np.zeros(shape, np.float32))
    tensor = Transpose(expr) if turned and len(shape) > 1 else expr
    ranges = list(row_ranges(tensor, values=values, by_matrix=by_matrix))
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(tensor.n_rows))
    assert all(stop - start <= max(1, values // tensor.shape[-1]) for start, stop in ranges) or tensor.is_columnwise
    if by_matrix or tensor.is_columnwise:
        assert all(start // tensor.matrix_rows == (stop - 1) // tensor.matrix_rows for start, stop in ranges)


def test_an_empty_tensor() -> None:
    assert list(row_ranges(Constant(np.zeros((0, 4), np.float32)))) == []
    assert distance_between(*2 * [Constant(np.zeros((0, 4), np.float32))]).count == 0
    assert spread_of(Constant(np.zeros((0, 4), np.float32))).deviation == 0


def test_long_rows_are_seen_as_short_ones(tmp_path: Path) -> None:
    path = tmp_path / "giant"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    with SourceFile(path) as source:
        giant = with_short_rows(Stored("t", source, 0, (1, 1 << 31), F32))
        assert giant.shape == (1 << 19, 4096)
        usual = Stored("t", source, 0, (4, 512), F32)
        assert with_short_rows(usual) is usual


def test_results_come_in_order() -> None:
    assert list(in_order(lambda n: n * n, iter(range(100)), threads=3)) == [n * n for n in range(100)]


def test_the_first_error_ends_it() -> None:
    started: list[int] = []

    def task(number: int) -> int:
        started.append(number)
        return 1 // (number - 3)

    with pytest.raises(ZeroDivisionError):
        list(in_order(task, range(1000), threads=2))
    assert len(started) < 50


def test_a_single_item_needs_no_thread() -> None:
    assert list(in_order(lambda _: threading.get_ident(), [1], threads=2)) == [threading.get_ident()]
    assert list(in_order(abs, [], threads=2)) == []


def test_no_thread_at_all() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        list(in_order(abs, [1], threads=0))


def test_progress() -> None:
    told: list[int] = []
    distance_between(*2 * [Constant(np.zeros((100, 50), np.float32))], progress=told.append)
    assert sum(told) == 5000 and len(told) > 1


def test_sums_of_parts_are_sums_of_all() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((8, 32)).astype(np.float32) for _ in range(2))
    whole = measure.distance_sums(a, b, 32).distance()
    parts = [measure.distance_sums(a[n : n + 2], b[n : n + 2], 32, first_row=n) for n in range(0, 8, 2)]
    total = measure.DistanceSums()
    for part in parts:
        total = total.plus(part)
    assert total.distance().max_error_at == whole.max_error_at
    assert total.distance().worst == whole.worst
    assert total.distance().rmse == pytest.approx(whole.rmse)
