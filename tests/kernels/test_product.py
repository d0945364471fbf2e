"""The product of an adapter's factors, beside the same sums in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge import UsageError
from gguf_forge.kernels.binding import backends, product


def summed(b: np.ndarray, a: np.ndarray) -> np.ndarray:
    total = np.zeros((len(b), a.shape[1]), np.float32)
    for rank in range(len(a)):
        total = total + np.multiply.outer(b[:, rank], a[rank])
    return total


@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 7), (4, 64, 64), (2, 65, 130), (7, 256, 31), (1, 200, 257)])
def test_sums_are_in_the_order_of_the_ranks(backend: str, size: tuple[int, int, int]) -> None:
    n_rows, n_ranks, n_columns = size
    random = np.random.default_rng(sum(size))
    b = random.normal(0, 1, (n_rows, n_ranks)).astype(np.float32)
    a = random.normal(0, 1, (n_ranks, n_columns)).astype(np.float32)
    assert product(b, a, backend=backend).tobytes() == summed(b, a).tobytes()


@pytest.mark.parametrize("backend", backends())
def test_strange_numbers(backend: str) -> None:
    b = np.array([[1e-30, 1], [np.inf, 1], [-0.0, -0.0], [3e38, 3e38]], np.float32)
    a = np.array([[1e-10, 0, 2], [1e-44, -0.0, 2]], np.float32)
    with np.errstate(all="ignore"):
        wanted = summed(b, a)
    assert np.array_equal(product(b, a, backend=backend), wanted, equal_nan=True)


def test_nothing() -> None:
    assert product(np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32)).tolist() == [[0.0] * 3] * 2
    assert product(np.zeros((0, 2), np.float32), np.zeros((2, 3), np.float32)).shape == (0, 3)


def test_views_are_read_as_they_are() -> None:
    b, a = np.arange(6, dtype=np.float32).reshape(2, 3).T, np.arange(8, dtype=np.float32).reshape(4, 2).T
    assert np.array_equal(product(b, a), b @ a)


def test_shapes_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="have no product"):
        product(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32))
