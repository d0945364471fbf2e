"""Low-rank pairs, as LoRA adapters hold them: the change of a weight is the product B times A of two thin matrices.

Operations that a declaration applies to the weight are applied to the pair: those on rows to B, those on columns to A.
The operations that undo these, on the way back to a checkpoint, are applied to it in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.arithmetic import Divide, Inverse, Multiply
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.tensors.joined import Joined, Stack
from gguf_forge.tensors.row_maps import AlongAxis, Reshape, RowRange, Transpose, reshaped, transposed
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

# Rows of factors that are compared at a time.
_COMPARED = 256


@dataclass(frozen=True)
class LowRank(TensorExpr):
    """The product of B (..., R, rank) and A (..., rank, C). Only its factors are ever read. Where one of them is a
    stack and the other a single matrix, this matrix belongs to each of the stack.

    Attributes:
        a: The factor with the columns.
        b: The factor with the rows.
    """

    a: TensorExpr
    b: TensorExpr
    dtype: TensorType = F32

    def __post_init__(self) -> None:
        stacks = zip(self.a.shape[:-2], self.b.shape[:-2], strict=False)
        fit = all(one == other or 1 in (one, other) for one, other in stacks)
        if len(self.a.shape) != len(self.b.shape) or self.a.shape[-2] != self.b.shape[-1] or not fit:
            raise InputError(f"factors of the shapes {self.a.shape} and {self.b.shape} have no product")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        leading = np.broadcast_shapes(self.a.shape[:-2], self.b.shape[:-2])
        return (*leading, self.b.shape[-2], self.a.shape[-1])

    def take(self, rows: RowNumbers) -> Rows:
        raise UnsupportedError("the product of an adapter's factors is not computed")

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.a.working_set(self.a.n_rows) + self.b.working_set(n_rows, scattered=scattered)


def factors(expr: TensorExpr) -> tuple[TensorExpr, TensorExpr]:
    """A and B of what operations made of a low-rank pair.

    Raises:
        UnsupportedError: an operation mixes rows and columns, or joins pairs whose factors differ, so that no pair has
            its result.
    """
    if isinstance(expr, LowRank):
        return expr.a, expr.b
    if isinstance(expr, Stack):
        pairs = [factors(part) for part in expr.parts]
        return Stack(tuple(a for a, _ in pairs)), Stack(tuple(b for _, b in pairs))
    if isinstance(expr, Joined):
        return _joined(expr)
    if not isinstance(expr, Unary):
        raise UnsupportedError(f"an adapter cannot be {expr.words or type(expr).__name__}")
    a, b = factors(expr.of)
    if isinstance(expr, Transpose):
        return transposed(b), transposed(a)
    if isinstance(expr, Multiply | Divide):
        return a, replace(expr, of=b)
    if isinstance(expr, Inverse) and isinstance(expr.operation, Multiply | Divide):
        return a, Inverse(b, replace(expr.operation, of=b), replace(expr.opposite, of=b))
    if isinstance(expr, Reshape) and expr.acts_on == "rows":
        return _reshaped(a, b, expr)
    if isinstance(expr, RowRange) and len(expr.shape) > 2:
        return _of_matrices(a, expr), _of_matrices(b, expr)
    if expr.acts_on == "rows" and (prod(a.shape[:-2]) == 1 or (isinstance(expr, AlongAxis) and expr.axis == -2)):
        return a, replace(expr, of=b)
    if expr.acts_on == "columns":
        return replace(expr, of=a), b
    raise UnsupportedError(f"an adapter cannot be {expr.words or type(expr).__name__}")


def _reshaped(a: TensorExpr, b: TensorExpr, expr: Reshape) -> tuple[TensorExpr, TensorExpr]:
    """The factors of a pair whose rows are put into another shape."""
    leading = expr.to[:-2]
    if prod(a.shape[:-2]) == 1:
        return reshaped(a, (*(1 for _ in leading), *a.shape[-2:])), reshaped(b, (*expr.to[:-1], b.shape[-1]))
    if expr.to[-2] != b.shape[-2]:
        raise UnsupportedError("the rows of matrices that have a factor A each are no pair together")
    b_leading = leading if prod(b.shape[:-2]) > 1 else (1,) * len(leading)
    return reshaped(a, (*leading, *a.shape[-2:])), reshaped(b, (*b_leading, *b.shape[-2:]))


def _of_matrices(factor: TensorExpr, expr: RowRange) -> TensorExpr:
    """The factor of some matrices of a stack."""
    if prod(factor.shape[:-2]) == 1:
        return reshaped(factor, (1, *factor.shape[-2:]))
    first, stop = (row // expr.of.matrix_rows * factor.matrix_rows for row in (expr.start, expr.stop))
    return RowRange(factor, first, stop)


def _joined(expr: Joined) -> tuple[TensorExpr, TensorExpr]:
    """The factors of several pairs side by side: rows have A in common, and columns B."""
    pairs = [factors(each) for each in expr.exprs]
    all_a, all_b = [a for a, _ in pairs], [b for _, b in pairs]

    def side_by_side(parts: Sequence[TensorExpr]) -> TensorExpr:
        return replace(
            expr, pieces=tuple(piece._replace(expr=part) for piece, part in zip(expr.pieces, parts, strict=True))
        )

    if expr.axis == -2:
        return _common(all_a, "A"), side_by_side(all_b)
    if expr.axis == -1:
        return side_by_side(all_a), _common(all_b, "B")
    raise UnsupportedError("stacks of an adapter cannot be joined")


def _common(parts: Sequence[TensorExpr], which: str) -> TensorExpr:
    """The one factor that several pairs have. The factors are read, as only their values tell."""
    first = parts[0]
    if not all(other is first or _are_equal(first, other) for other in parts[1:]):
        raise UnsupportedError(f"parts of one tensor have factors {which} that differ, so no pair is their change")
    return first


def _are_equal(one: TensorExpr, other: TensorExpr) -> bool:
    starts = range(0, one.n_rows, _COMPARED)
    return one.shape == other.shape and all(
        np.array_equal(one.rows(start, stop), other.rows(start, stop))
        for start, stop in ((start, min(start + _COMPARED, one.n_rows)) for start in starts)
    )
