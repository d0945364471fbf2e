"""Operations that compute new values from the values of their operands.

Values are computed in float32 and rounded to float16 where they were float16, as the reference does: it widens all
other types to float32 before it computes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.kernels.binding import exp_values
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.tensors.softplus import softplus
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F16, F32, TensorType

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
DType = np.dtype[Any]
# How far from an inverse's result the value with the very result is looked for, in steps of its type.
_MOST_STEPS = 4
# What torch's norms add to the variance.
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Elementwise(Unary):
    """An operation that changes each value of `of` independently of the others."""

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return F16 if self.of.dtype == F16 else F32

    @abstractmethod
    def compute(self, x: Floats) -> Floats:
        """The new values for `x`. The array `x` may be overwritten."""

    def take(self, rows: RowNumbers) -> Rows:
        below = self.of.take(rows)
        with np.errstate(all="ignore"):  # what is not finite is told when it is packed
            values: Rows = self.compute(below.astype(np.float32))
            return values.astype(np.float16) if self.dtype == F16 else values

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        wide = n_rows * F32.row_bytes(self.shape[-1])
        return self.of.working_set(n_rows, scattered=scattered) + 2 * wide


@dataclass(frozen=True)
class Add(Elementwise):
    """Plus a number."""

    number: float

    def compute(self, x: Floats) -> Floats:
        x += np.float32(self.number)
        return x

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Add(value, -self.number)

    @property
    def words(self) -> str:
        return f"plus {self.number:g}"

    @property
    def omission(self) -> str:
        return f"without adding {self.number:g}"


@dataclass(frozen=True)
class Multiply(Elementwise):
    """Times a number."""

    number: float

    def compute(self, x: Floats) -> Floats:
        x *= np.float32(self.number)
        return x

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Inverse(value, self, Divide(value, self.number))

    @property
    def words(self) -> str:
        return f"times {self.number:g}"

    @property
    def omission(self) -> str:
        return f"without multiplying by {self.number:g}"


@dataclass(frozen=True)
class Divide(Elementwise):
    """Divided by a number."""

    number: float

    def compute(self, x: Floats) -> Floats:
        x /= np.float32(self.number)
        return x

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Inverse(value, self, Multiply(value, self.number))

    @property
    def words(self) -> str:
        return f"divided by {self.number:g}"

    @property
    def omission(self) -> str:
        return f"without dividing by {self.number:g}"


@dataclass(frozen=True)
class Inverse(Elementwise):
    """What an operation was applied to, by its results: values that give these results, bit for bit.

    The inverse operation rounds as well, so its result may be some steps away from a value that gives the very result.
    The neighbours are tried. Where none gives it, the inverse operation's result stays.

    Attributes:
        of: The results.
        operation: The operation.
        opposite: Its inverse.
    """

    operation: Elementwise
    opposite: Elementwise

    def compute(self, x: Floats) -> Floats:
        kind = self.of.dtype.dtype
        found: Floats = self.opposite.compute(x.copy()).astype(self.dtype.dtype).astype(np.float32)
        below, above = found.copy(), found.copy()
        for _ in range(_MOST_STEPS):
            missed = self._missed(found, x, kind)
            if not missed.any():
                return found
            below, above = self._next(below, -np.inf), self._next(above, np.inf)
            for tried in (below, above):
                hit = missed & ~self._missed(tried, x, kind)
                found[hit] = tried[hit]
        return found

    def _next(self, values: Floats, end: float) -> Floats:
        """The neighbours of values in their type, on the side of `end`."""
        kind = self.dtype.dtype
        following: Floats = np.nextafter(values.astype(kind), np.array(end, kind)).astype(np.float32)
        return following

    def _missed(self, tried: Floats, x: Floats, kind: DType) -> Flags:
        """Where the operation gives other values than `x`, in the type that these have."""
        missed: Flags = self.operation.compute(tried.copy()).astype(kind).astype(np.float32) != x
        return missed

    def children(self) -> Iterator[TensorExpr]:
        yield self.of

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        wide = n_rows * F32.row_bytes(self.shape[-1])
        return max(
            super().working_set(n_rows, scattered=scattered) + 7 * wide,
            self.operation.working_set(n_rows, scattered=scattered) + 7 * wide,
            self.opposite.working_set(n_rows, scattered=scattered) + 7 * wide,
        )

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return replace(self.operation, of=value)

    @property
    def words(self) -> str:
        return self.opposite.words


@dataclass(frozen=True)
class Reciprocal(Elementwise):
    """One divided by each value."""

    def compute(self, x: Floats) -> Floats:
        return np.reciprocal(x)

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Reciprocal(value)

    @property
    def words(self) -> str:
        return "its reciprocal"


@dataclass(frozen=True)
class NegExp(Elementwise):
    """Minus e to the power of each value, with the bits of torch's `exp` (see csrc/exp.c)."""

    def compute(self, x: Floats) -> Floats:
        return -exp_values(x)

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Inverse(value, self, LogNeg(value))

    @property
    def words(self) -> str:
        return "minus e to its power"

    @property
    def omission(self) -> str:
        return "without taking e to its power"


@dataclass(frozen=True)
class Softplus(Elementwise):
    """The logarithm of 1 + e to the power of each value, with the bits of torch's `softplus` (see softplus.py)."""

    def compute(self, x: Floats) -> Floats:
        return softplus(x)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return super().working_set(n_rows, scattered=scattered) + 24 * n_rows * F32.row_bytes(self.shape[-1])

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Inverse(value, self, InverseSoftplus(value))

    @property
    def words(self) -> str:
        return "log(1 + e^x)"


@dataclass(frozen=True)
class InverseSoftplus(Elementwise):
    """The logarithm of e to the power of each value - 1, computed in float64 and rounded once."""

    def compute(self, x: Floats) -> Floats:
        wide = x.astype(np.float64)
        return (wide + np.log(-np.expm1(-wide))).astype(np.float32)

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return Softplus(value)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return super().working_set(n_rows, scattered=scattered) + 8 * n_rows * F32.row_bytes(self.shape[-1])

    @property
    def words(self) -> str:
        return "log(e^x - 1)"


@dataclass(frozen=True)
class LogNeg(Elementwise):
    """The logarithm of each value without its minus sign, computed in float64 and rounded once."""

    def compute(self, x: Floats) -> Floats:
        return np.log(-x.astype(np.float64)).astype(np.float32)

    def inverse(self, value: TensorExpr) -> TensorExpr:
        return NegExp(value)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        wide = n_rows * F32.row_bytes(self.shape[-1])
        return super().working_set(n_rows, scattered=scattered) + 6 * wide

    @property
    def words(self) -> str:
        return "logarithm of its negative"


@dataclass(frozen=True)
class Combined(TensorExpr):
    """Tensors of one shape combined into one, value by value, in float32, in the order from the first to the last."""

    parts: tuple[TensorExpr, ...]

    def __post_init__(self) -> None:
        if len({part.shape for part in self.parts}) != 1:
            raise InputError(
                f"tensors of shapes {', '.join(str(part.shape) for part in self.parts)} do not go together"
            )

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.parts[0].shape

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return F16 if all(part.dtype == F16 for part in self.parts) else F32

    @property
    def source_type(self) -> TensorType:
        return self.parts[0].source_type

    @abstractmethod
    def combine(self, x: Floats, other: Rows) -> Floats:
        """Combines two arrays. The result is written over the first one."""

    def take(self, rows: RowNumbers) -> Rows:
        with np.errstate(all="ignore"):  # what is not finite is told when it is packed
            total = self.parts[0].take(rows).astype(np.float32)
            for part in self.parts[1:]:
                total = self.combine(total, part.take(rows))
            return total.astype(self.dtype.dtype, copy=False)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        below = max(part.working_set(n_rows, scattered=scattered) for part in self.parts)
        return below + 3 * n_rows * F32.row_bytes(prod(self.shape[-1:]))


class Sum(Combined):
    """Tensors added to each other."""

    def combine(self, x: Floats, other: Rows) -> Floats:
        x += other
        return x

    @property
    def words(self) -> str:
        return f"the sum of {len(self.parts)}"


class Product(Combined):
    """Tensors multiplied by each other."""

    dtype = F32

    def combine(self, x: Floats, other: Rows) -> Floats:
        x *= other
        return x

    @property
    def words(self) -> str:
        return f"the product of {len(self.parts)}"


@dataclass(frozen=True)
class FoldedNorm(TensorExpr):
    """A batch norm without mean and variance of its own: both are folded into the weight, or into the bias.

    Attributes:
        weight: The weight, a vector as all others are.
        bias: The bias.
        mean: The running mean.
        variance: The running variance.
        gives: Which of the two comes out.
    """

    weight: TensorExpr
    bias: TensorExpr
    mean: TensorExpr
    variance: TensorExpr
    gives: Literal["weight", "bias"] = "weight"

    def __post_init__(self) -> None:
        if len({part.shape for part in self.children()}) != 1 or len(self.weight.shape) != 1:
            raise InputError("weight, bias, mean and variance of a norm are not vectors of one length")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.weight.shape

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return F32

    @property
    def source_type(self) -> TensorType:
        return self.weight.source_type

    def take(self, rows: RowNumbers) -> Rows:
        weight, bias, mean, variance = (part.take(rows).astype(np.float32) for part in self.children())
        with np.errstate(all="ignore"):  # what is not finite is told when it is packed
            scale: Rows = weight / np.sqrt(variance + np.float32(NORM_EPSILON))
            shift: Rows = bias - mean * scale
        return scale if self.gives == "weight" else shift

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        below = max(part.working_set(n_rows, scattered=scattered) for part in self.children())
        return below + 8 * n_rows * F32.row_bytes(self.shape[-1])

    @property
    def words(self) -> str:
        return "mean and variance folded in"
