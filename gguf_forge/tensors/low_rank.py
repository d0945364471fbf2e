"""Low-rank pairs, as LoRA adapters hold them: the change of a weight is the product B times A of two thin matrices.

Operations that a declaration applies to the weight are applied to the pair: those on rows to B, those on columns to A.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.arithmetic import Divide, Multiply
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.row_maps import Reshape, Transpose, reshaped, transposed
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType


@dataclass(frozen=True)
class LowRank(TensorExpr):
    """The product of B (..., R, rank) and A (rank, C). Only its factors are ever read.

    Attributes:
        a: The factor with the columns.
        b: The factor with the rows.
    """

    a: TensorExpr
    b: TensorExpr
    dtype: TensorType = F32

    def __post_init__(self) -> None:
        if len(self.a.shape) != len(self.b.shape) or self.a.shape[-2] != self.b.shape[-1]:
            raise InputError(f"factors of the shapes {self.a.shape} and {self.b.shape} have no product")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (*self.b.shape[:-1], self.a.shape[-1])

    def take(self, rows: RowNumbers) -> Rows:
        raise UnsupportedError("the product of an adapter's factors is not computed")

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return self.a.working_set(self.a.n_rows) + self.b.working_set(n_rows, scattered=scattered)


def factors(expr: TensorExpr) -> tuple[TensorExpr, TensorExpr]:
    """A and B of what a declaration made of a low-rank pair.

    Raises:
        UnsupportedError: an operation mixes rows and columns, so that no pair has its result.
    """
    if isinstance(expr, LowRank):
        return expr.a, expr.b
    if isinstance(expr, Stack):
        pairs = [factors(part) for part in expr.parts]
        return Stack(tuple(a for a, _ in pairs)), Stack(tuple(b for _, b in pairs))
    if not isinstance(expr, Unary):
        raise UnsupportedError(f"an adapter cannot be {expr.words or type(expr).__name__}")
    a, b = factors(expr.of)
    if isinstance(expr, Transpose):
        return transposed(b), transposed(a)
    if isinstance(expr, Multiply | Divide):
        return a, replace(expr, of=b)
    if isinstance(expr, Reshape) and expr.acts_on == "rows":
        leading = (1,) * (len(expr.to) - 2)
        return reshaped(a, (*leading, *a.shape[-2:])), reshaped(b, (*expr.to[:-1], b.shape[-1]))
    if expr.acts_on == "rows":
        return a, replace(expr, of=b)
    if expr.acts_on == "columns":
        return replace(expr, of=a), b
    raise UnsupportedError(f"an adapter cannot be {expr.words or type(expr).__name__}")
