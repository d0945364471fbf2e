"""Embeddings that go through a small network when a model is converted: two matrices with an activation in between.

A sum of many products depends on the order in which it is rounded, and libraries for matrices choose that order by the
machine. Here each factor is cut into two numbers of at most 21 bits, so that sums of their products are exact in
float64 and have the same bits on every machine. The result is rounded to float32 once for each of the two matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.softplus import silu
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

ACTIVATIONS = ("silu", "relu")
_BITS = 20
# Products of two numbers of 21 bits have 41 bits with sign, and this many of them sum up to less than 2^53.
_EXACT_SUM = 1 << 11
_ROWS = 256  # that are computed at a time


def in_two(values: Floats) -> tuple[Doubles, Doubles]:
    """Each value as the sum of two numbers of at most 21 bits, both of one unit for all of a row."""
    wide = values.astype(np.float64)
    _, exponents = np.frexp(np.abs(wide).max(axis=-1, keepdims=True, initial=0))
    unit = np.ldexp(1.0, exponents - _BITS)
    high = np.rint(wide / unit) * unit
    unit /= 1 << (_BITS + 1)
    return high, np.rint((wide - high) / unit) * unit


def product(x: Floats, halves: tuple[Doubles, Doubles]) -> Floats:
    """The product of `x` with the transpose of a matrix that `in_two` gave, each value rounded once to float32."""
    high, low = in_two(x)
    total = np.zeros((len(x), len(halves[0])))
    for start in range(0, x.shape[1], _EXACT_SUM):
        part = slice(start, start + _EXACT_SUM)
        small = high[:, part] @ halves[1][:, part].T + low[:, part] @ halves[0][:, part].T
        total += high[:, part] @ halves[0][:, part].T + small
    return total.astype(np.float32)


def activated(x: Floats, name: str) -> Floats:
    """The activation of each value, with torch's bits."""
    return silu(x) if name == "silu" else np.maximum(x, np.float32(0))


@dataclass(frozen=True)
class ThroughNetwork(TensorExpr):
    """Rows that went through `second(activation(first(row)))`.

    Attributes:
        of: The rows.
        first, first_bias, second, second_bias: The two layers, as torch's `Linear` stores them.
        activation: One of `ACTIVATIONS`.
    """

    of: TensorExpr
    first: TensorExpr
    first_bias: TensorExpr
    second: TensorExpr
    second_bias: TensorExpr
    activation: str

    def __post_init__(self) -> None:
        matrices = [self.of.shape, self.first.shape, self.second.shape]
        fit = (
            all(len(shape) == 2 for shape in matrices)
            and matrices[0][1] == matrices[1][1]
            and matrices[1][0] == matrices[2][1]
            and self.first_bias.shape == matrices[1][:1]
            and self.second_bias.shape == matrices[2][:1]
        )
        if not fit:
            raise InputError(
                f"embeddings of shape {self.of.shape} do not fit the layers of the network they go through"
            )

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.of.shape[0], self.second.shape[0])

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return F32

    @property
    def source_type(self) -> TensorType:
        return self.of.source_type

    @property
    def is_columnwise(self) -> bool:
        """The matrices are read whole for each batch, so few large batches are best."""
        return True

    def reused(self) -> Iterator[TensorExpr]:
        yield from (self.first, self.first_bias, self.second, self.second_bias)

    def take(self, rows: RowNumbers) -> Rows:
        layers = [
            (in_two(_floats(matrix)), _floats(bias)[0])
            for matrix, bias in ((self.first, self.first_bias), (self.second, self.second_bias))
        ]
        out = np.empty((len(rows), self.shape[-1]), np.float32)
        with np.errstate(all="ignore"):  # what is not finite is told when it is packed
            for start in range(0, len(rows), _ROWS):
                x = self.of.take(rows[start : start + _ROWS]).astype(np.float32)
                for number, (matrix, bias) in enumerate(layers):
                    x = product(x, matrix) + bias
                    x = activated(x, self.activation) if number == 0 else x
                out[start : start + _ROWS] = x
        return out

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        some = min(n_rows, _ROWS)
        inner, width = self.first.shape[0], self.shape[-1]
        of_rows = self.of.working_set(some, scattered=scattered) + 64 * some * (self.of.shape[-1] + inner + width)
        matrices = sum(
            each.working_set(each.n_rows) + 44 * each.shape[0] * each.shape[1] for each in (self.first, self.second)
        )
        return n_rows * self.row_bytes + of_rows + matrices + 64 * (inner + width)

    @property
    def words(self) -> str:
        return f"through two layers with {self.activation} in between"


def _floats(expr: TensorExpr) -> Floats:
    values: Floats = expr.rows(0, expr.n_rows).astype(np.float32)
    return values
