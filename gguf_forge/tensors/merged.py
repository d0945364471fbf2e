"""Weights with a LoRA adapter merged in, row by row, in an arithmetic that is the same on every machine.

An element of the change is the sum over the ranks in their order, from zero: each product and each sum is rounded to
float32. The sum is multiplied by the scale, and added to the weight, both in float32. DoRA then gives each row the
length that the adapter learned for it. `Rounded` rounds the result once, after the last adapter.

Sources: `Linear.get_delta_weight` and `DoraLinearVariant.merge_unsafe` of PEFT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gguf_forge.errors import InputError
from gguf_forge.kernels.binding import product
from gguf_forge.kernels.rows import as_float32
from gguf_forge.tensors.arithmetic import Multiply
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.tensors.packed import RepackNvfp4
from gguf_forge.tensors.row_maps import Transpose, transposed
from gguf_forge.types.rows import FloatRows, RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType


@dataclass(frozen=True)
class Merged(Unary):
    """A matrix (N, C) plus `scale` times the product of B (N, rank) and A (rank, C), in float32.

    Attributes:
        a: The factor with the columns.
        b: The factor with the rows.
        scale: What the product is multiplied by.
        adapter: The name of the adapter, for people.
        before: For DoRA, the matrix without any adapter, if `of` has some: the lengths of rows are measured with it.
        magnitude: The length of each row (N,), for DoRA.
    """

    a: TensorExpr
    b: TensorExpr
    scale: float
    adapter: str = ""
    before: TensorExpr | None = None
    magnitude: TensorExpr | None = None
    dtype: TensorType = F32

    def __post_init__(self) -> None:
        rank = self.a.shape[0]
        if self.of.shape != (self.b.shape[0], self.a.shape[-1]) or self.b.shape[1:] != (rank,):
            raise InputError(
                f"factors of the shapes {self.a.shape} and {self.b.shape} do not fit a matrix {self.of.shape}"
            )
        if self.magnitude is not None and self.magnitude.shape != self.of.shape[:1]:
            raise InputError(f"lengths {self.magnitude.shape} do not fit a matrix {self.of.shape}")

    def reused(self) -> Iterator[TensorExpr]:
        yield from (each for each in (self.a, self.magnitude) if each is not None)

    def take(self, rows: RowNumbers) -> Rows:
        with np.errstate(all="ignore"):  # what is not finite is told when it is packed
            change = product(self.b.take(rows).astype(np.float32), _whole(self.a))
            change *= np.float32(self.scale)
            merged = self.of.take(rows).astype(np.float32)
            merged += change
            if self.magnitude is not None:
                if self.before is not None:
                    change += self.before.take(rows)
                merged *= self._factors(rows, change if self.before is not None else merged)
        return merged

    def _factors(self, rows: RowNumbers, changed: FloatRows) -> FloatRows:
        """The learned length of each row by its length now. Squares of float32 are exact in float64; they are added
        from the first column to the last."""
        assert self.magnitude is not None
        squares = np.square(changed, dtype=np.float64)
        lengths = np.sqrt(np.add.accumulate(squares, axis=1, out=squares)[:, -1]).astype(np.float32)
        factors: FloatRows = _whole(self.magnitude)[0, rows] / lengths
        return factors[:, None]

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        wide = n_rows * F32.row_bytes(self.shape[-1])
        below = [self.of.working_set(n_rows, scattered=scattered), self.b.working_set(n_rows, scattered=scattered)]
        factors = sum(_bytes_of_whole(each) for each in (self.a, self.magnitude) if each is not None)
        held = n_rows * F32.row_bytes(self.b.shape[-1])
        if self.magnitude is not None:
            below.append(self.before.working_set(n_rows, scattered=scattered) if self.before is not None else 0)
            held += 3 * wide
        return max(below) + factors + held + 3 * wide

    @property
    def words(self) -> str:
        learned = ", rows of learned lengths" if self.magnitude is not None else ""
        return f"plus {self.scale:g} x B x A of {self.adapter}{learned}"

    @property
    def omission(self) -> str:
        return f"without the adapter {self.adapter}"


@dataclass(frozen=True)
class AddedVector(Unary):
    """A vector plus `scale` times another one, in float32."""

    other: TensorExpr
    scale: float
    adapter: str = ""
    dtype: TensorType = F32

    def __post_init__(self) -> None:
        if self.of.shape != self.other.shape:
            raise InputError(f"a vector {self.other.shape} does not fit one of shape {self.of.shape}")

    def take(self, rows: RowNumbers) -> Rows:
        with np.errstate(all="ignore"):
            change = self.other.take(rows).astype(np.float32) * np.float32(self.scale)
            total: FloatRows = self.of.take(rows).astype(np.float32) + change
        return total

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        below = max(each.working_set(n_rows, scattered=scattered) for each in (self.of, self.other))
        return below + 4 * n_rows * self.row_bytes

    @property
    def words(self) -> str:
        return f"plus {self.scale:g} x the bias of {self.adapter}"

    @property
    def omission(self) -> str:
        return f"without the adapter {self.adapter}"


@dataclass(frozen=True)
class ReplacedRows(Unary):
    """A matrix with some of its rows replaced: row `index[n]` by row n of another one.

    Attributes:
        by: The other matrix, with a row for each number.
        index: Row numbers, each once.
    """

    by: TensorExpr
    index: tuple[int, ...]
    adapter: str = ""
    dtype: TensorType = F32

    def __post_init__(self) -> None:
        fits = len(self.of.shape) == 2 and self.by.shape == (len(self.index), self.of.shape[-1])
        are_rows = len(set(self.index)) == len(self.index) and all(row < self.of.n_rows for row in self.index)
        if not (fits and are_rows):
            raise InputError(f"{len(self.index)} rows {self.by.shape} do not fit into a matrix {self.of.shape}")

    def take(self, rows: RowNumbers) -> Rows:
        values = self.of.take(rows).astype(np.float32)
        order = np.argsort(self.index)
        numbers = np.array(self.index)[order]
        places = np.searchsorted(numbers, rows).clip(max=len(numbers) - 1)
        mine = np.flatnonzero(numbers[places] == rows)
        if len(mine):
            values[mine] = self.by.take(order[places[mine]])
        return values

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        by = self.by.working_set(min(n_rows, self.by.n_rows), scattered=True)
        below = max(self.of.working_set(n_rows, scattered=scattered), by)
        return below + 3 * n_rows * self.row_bytes + 64 * (len(self.index) + n_rows)

    @property
    def words(self) -> str:
        return f"{len(self.index)} rows of {self.adapter}"

    @property
    def omission(self) -> str:
        return f"without the adapter {self.adapter}"


@dataclass(frozen=True)
class Rounded(Unary):
    """Float32 values rounded once to a smaller float type, to the nearest and in a tie to the even one."""

    to: TensorType

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return self.to

    def take(self, rows: RowNumbers) -> Rows:
        with np.errstate(all="ignore"):
            return self.of.take(rows).astype(self.to.dtype)

    @property
    def words(self) -> str:
        return f"rounded to {self.to}"


@dataclass(frozen=True)
class Brought(Unary):
    """A tensor that an adapter brings along, in place of the model's."""

    adapter: str

    @property
    def words(self) -> str:
        return f"of {self.adapter}"


def of_adapters(expr: TensorExpr) -> Iterator[TensorExpr]:
    """What adapters bring into an expression, such as the factors of a change."""
    match expr:
        case Merged():
            yield from (each for each in (expr.a, expr.b, expr.magnitude) if each is not None)
        case AddedVector():
            yield expr.other
        case ReplacedRows():
            yield expr.by
        case Brought():
            yield expr.of
    for child in expr.children():
        yield from of_adapters(child)


def rounded(x: TensorExpr, to: TensorType) -> TensorExpr:
    """Float32 values as another float type."""
    return x if x.dtype == to else Rounded(x, to)


@dataclass(frozen=True)
class Unpacked(Unary):
    """The values of packed rows, as float32."""

    dtype = F32

    def take(self, rows: RowNumbers) -> Rows:
        return as_float32(self.of.take(rows), self.of.dtype)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.of.working_set(n_rows, scattered=scattered) + 2 * n_rows * self.row_bytes

    @property
    def words(self) -> str:
        return "dequantized"


def unpacked(x: TensorExpr) -> TensorExpr:
    """A tensor whose rows are floats: `x`, or the values of its blocks."""
    if x.dtype.is_float:
        return x
    if isinstance(x, Transpose):
        return transposed(unpacked(x.of))
    if isinstance(x, RepackNvfp4) and x.tensor_scale != 1:
        return Multiply(Unpacked(x), x.tensor_scale)
    return Unpacked(x)


def _whole(x: TensorExpr) -> FloatRows:
    values: FloatRows = x.rows(0, x.n_rows).astype(np.float32)
    return values


def _bytes_of_whole(x: TensorExpr) -> int:
    return x.working_set(x.n_rows) + x.n_rows * F32.row_bytes(x.shape[-1])
