"""The vectors of a codebook that is stored as it was trained: a sum for each code, and how often the code was used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

_LEAST = np.float32(1e-5)


@dataclass(frozen=True)
class Codebook(TensorExpr):
    """Each sum divided by its count, or by 1e-5 if the code was used less.

    Attributes:
        sums: A vector for each code.
        counts: A number for each code, as one vector.
    """

    sums: TensorExpr
    counts: TensorExpr

    def __post_init__(self) -> None:
        if len(self.sums.shape) != 2 or self.counts.shape != self.sums.shape[:1]:
            raise InputError(f"sums of shape {self.sums.shape} and counts of shape {self.counts.shape} do not fit")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.sums.shape

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return F32

    @property
    def source_type(self) -> TensorType:
        return self.sums.source_type

    def reused(self) -> Iterator[TensorExpr]:
        yield self.counts

    def take(self, rows: RowNumbers) -> Rows:
        counts = self.counts.rows(0, 1)[0].astype(np.float32)
        with np.errstate(all="ignore"):  # what is not finite is told when it is packed
            divided: Rows = self.sums.take(rows).astype(np.float32) / np.maximum(counts[rows], _LEAST)[:, None]
        return divided

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        below = self.sums.working_set(n_rows, scattered=scattered) + self.counts.working_set(1)
        return below + 2 * n_rows * F32.row_bytes(self.shape[-1]) + 8 * self.counts.row_bytes

    def children(self) -> Iterator[TensorExpr]:
        yield from (self.sums, self.counts)

    @property
    def words(self) -> str:
        return "sums divided by counts"
