"""What a declaration may ask about the weights themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.site import COMPARED_BYTES, Site
from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.rows import RowNumbers, Rows

# so many rows that they are compared in several parts
_COLUMNS = 1024
_ROWS = 3 * COMPARED_BYTES // (4 * _COLUMNS) + 1


@dataclass(frozen=True)
class _Counted(Constant):
    taken: list[int] = field(default_factory=list)

    def take(self, rows: RowNumbers) -> Rows:
        self.taken.append(len(rows))
        return super().take(rows)


def _counted(values: np.ndarray) -> _Counted:
    return _Counted(values.astype(np.float32))


def _site(**tensors: Constant) -> Site:
    return Site(Config.of({}), LocalFolder(Path()), tensors=tensors)


def _numbers() -> np.ndarray:
    return np.arange(_ROWS * _COLUMNS).reshape(_ROWS, _COLUMNS) % 251


def test_copies_are_compared_to_the_end_part_by_part() -> None:
    one, two = _counted(_numbers()), _counted(_numbers())
    assert _site(a=one, b=two).has_same_values("a", "b")
    assert sum(one.taken[1:]) == _ROWS
    assert max(one.taken) * one.row_bytes <= COMPARED_BYTES


def test_tensors_that_differ_everywhere_are_told_by_a_few_rows() -> None:
    one, two = _counted(_numbers()), _counted(_numbers() + 1)
    assert not _site(a=one, b=two).has_same_values("a", "b")
    assert sum(one.taken) <= 16


@pytest.mark.parametrize("row", [0, 1, _ROWS // 2 + 1, _ROWS - 1])
def test_one_value_makes_a_difference(row: int) -> None:
    values = _numbers()
    values[row, 7] += 1
    assert not _site(a=_counted(_numbers()), b=_counted(values)).has_same_values("a", "b")


def test_tensors_of_two_shapes_differ() -> None:
    assert not _site(a=_counted(np.zeros((2, 3))), b=_counted(np.zeros((3, 2)))).has_same_values("a", "b")


def test_a_tensor_that_is_not_there() -> None:
    with pytest.raises(InputError, match="lacks this tensor"):
        _site(a=_counted(np.zeros((2, 3)))).has_same_values("a", "b")


def test_rows_of_zeros_are_found_from_a_row_on() -> None:
    values = _numbers() + 1
    values[[1, 5, _ROWS - 1]] = 0
    values[_ROWS - 2, 1:] = 0
    assert _site(a=_counted(values)).zero_rows("a", 0) == [1, 5, _ROWS - 1]
    assert _site(a=_counted(values)).zero_rows("a", 5) == [5, _ROWS - 1]
    assert _site(a=_counted(values)).zero_rows("a", _ROWS) == []
