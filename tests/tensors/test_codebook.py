"""Codebooks that are stored as sums and counts."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge.errors import InputError
from gguf_forge.tensors.codebook import Codebook
from gguf_forge.tensors.stored import Constant


def test_each_sum_is_divided_by_its_count() -> None:
    sums, counts = np.float32([[1, 2], [3, 6], [0, 1e-5]]), np.float32([2, 3, 0])
    book = Codebook(Constant(sums), Constant(counts))
    assert book.rows(0, 3).tolist() == [[0.5, 1], [1, 2], [0, 1]]
    assert book.take(np.array([1, 0])).tolist() == [[1, 2], [0.5, 1]]


def test_counts_of_another_codebook_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        Codebook(Constant(np.zeros((3, 2), np.float32)), Constant(np.zeros(2, np.float32)))
