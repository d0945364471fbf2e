"""Several tensors as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from math import prod

import numpy as np

from gguf_forge.errors import InputError
from gguf_forge.storage.source import ByteRange
from gguf_forge.tensors.expression import (
    NUMBERS_BYTES,
    Stripe,
    TensorExpr,
    by_matrix,
    common_type,
    converted,
)
from gguf_forge.tensors.row_maps import RowRange, reshaped
from gguf_forge.tensors.stored import stored_in
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import TensorType


@dataclass(frozen=True)
class Stack(TensorExpr):
    """Tensors of one shape, one behind the other along a new first axis. Parts of different types become float32."""

    parts: tuple[TensorExpr, ...]

    def __post_init__(self) -> None:
        shapes = {part.shape for part in self.parts}
        packed = {part.dtype.name for part in self.parts if not part.dtype.is_float}
        if len(shapes) != 1 or (packed and packed != {part.dtype.name for part in self.parts}):
            kinds = Counter((part.shape, part.dtype.name) for part in self.parts)
            rare = kinds.most_common()[-1][0]
            odd = next(part for part in self.parts if (part.shape, part.dtype.name) == rare)
            named = "".join(f"; {stored.name} is the odd one" for stored in islice(stored_in(odd), 1))
            raise InputError(
                f"the {len(self.parts)} tensors to stack differ: {sorted(kinds)}{named}",
                hint="get an intact copy of the model: one may lack its scales",
            )

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (len(self.parts), *self.parts[0].shape)

    @property
    def rows_together(self) -> int:
        return self.parts[0].rows_together

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return common_type(self.parts)

    @property
    def source_type(self) -> TensorType:
        return self.parts[0].source_type

    def take(self, rows: RowNumbers) -> Rows:
        kind = self.dtype
        taken = [
            converted(self.parts[part].take(inner), self.parts[part].dtype, kind)
            for part, inner in by_matrix(rows, self.parts[0].n_rows)
        ]
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    def in_pieces(self, rows: RowNumbers, n_rows: int) -> Iterator[Rows]:
        (part, inner), *more = by_matrix(rows, self.parts[0].n_rows)
        if more:
            yield self.take(rows)
            return
        for piece in self.parts[part].in_pieces(inner, n_rows):
            yield converted(piece, self.parts[part].dtype, self.dtype)

    def stored_runs(self, start: int, stop: int) -> tuple[ByteRange, ...] | None:
        height, kind = self.parts[0].n_rows, self.dtype
        found: list[ByteRange] = []
        for part in range(start // height, -(-stop // height)):
            expr = self.parts[part]
            runs = expr.stored_runs(max(start - part * height, 0), min(stop - part * height, height))
            if runs is None or expr.dtype != kind:
                return None
            found.extend(runs)
        return tuple(found)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        mixed = any(part.dtype != self.parts[0].dtype for part in self.parts)
        below = max(part.working_set(n_rows, scattered=scattered) for part in (self.parts if mixed else self.parts[:1]))
        return below + (2 if mixed else 1) * n_rows * self.row_bytes

    def member(self, value: TensorExpr, number: int) -> TensorExpr:
        """The inverse: what part `number` was if the stack gave `value`."""
        n_rows = self.parts[number].n_rows
        return reshaped(RowRange(value, number * n_rows, (number + 1) * n_rows), self.parts[number].shape)

    @property
    def words(self) -> str:
        return f"{len(self.parts)} tensors stacked"


@dataclass(frozen=True)
class Joined(TensorExpr):
    """Pieces that together fill one axis, which is counted from the end. `concat` puts them one behind the other. The
    way back to a checkpoint also uses other places, for example every second row."""

    pieces: tuple[Stripe, ...]
    axis: int
    size: int

    @property
    def exprs(self) -> tuple[TensorExpr, ...]:
        return tuple(piece.expr for piece in self.pieces)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        shape = list(self.pieces[0].expr.shape)
        shape[self.axis] = self.size
        return tuple(shape)

    @property
    def dtype(self) -> TensorType:  # type: ignore[override]
        return common_type(self.exprs)

    @property
    def source_type(self) -> TensorType:
        return self.pieces[0].expr.source_type

    @property
    def rows_together(self) -> int:
        return max(expr.rows_together for expr in self.exprs)

    def take(self, rows: RowNumbers) -> Rows:
        kind = self.dtype
        taken = np.empty((len(rows), self.row_bytes // kind.dtype.itemsize), kind.dtype)
        if self.axis == -1:
            for piece in self.pieces:
                taken[:, piece.start : piece.stop : piece.step] = converted(
                    piece.expr.take(rows), piece.expr.dtype, kind
                )
            return taken
        stride = prod(self.shape[self.axis + 1 : -1])
        group, within = np.divmod(rows, stride)
        outer, index = np.divmod(group, self.size)
        for piece in self.pieces:
            number, rest = np.divmod(index - piece.start, piece.step)
            mine = np.flatnonzero((index >= piece.start) & (index < piece.stop) & (rest == 0))
            if len(mine):
                size = piece.expr.shape[self.axis]
                below = (outer[mine] * size + number[mine]) * stride + within[mine]
                taken[mine] = converted(piece.expr.take(below), piece.expr.dtype, kind)
        return taken

    def stored_runs(self, start: int, stop: int) -> tuple[ByteRange, ...] | None:
        if self.axis == -1 or prod(self.shape[: self.axis]) > 1 or any(piece.step > 1 for piece in self.pieces):
            return None
        stride, kind = prod(self.shape[self.axis + 1 : -1]), self.dtype
        found: list[ByteRange] = []
        for piece in self.pieces:
            first, last = max(start, piece.start * stride), min(stop, piece.stop * stride)
            if first < last:
                runs = piece.expr.stored_runs(first - piece.start * stride, last - piece.start * stride)
                if runs is None or piece.expr.dtype != kind:
                    return None
                found.extend(runs)
        return tuple(found)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        most = max(expr.working_set(n_rows, scattered=True) for expr in self.exprs)
        return n_rows * (2 * self.row_bytes + NUMBERS_BYTES) + most

    def children(self) -> Iterator[TensorExpr]:
        yield from self.exprs

    @property
    def words(self) -> str:
        return f"{len(self.pieces)} tensors joined"


def concat(parts: tuple[TensorExpr, ...], axis: int = -2) -> TensorExpr:
    """Tensors one behind the other along an axis that they have, counted from the end.

    Raises:
        InputError: the tensors differ along another axis.
    """
    others = {(*part.shape[: len(part.shape) + axis], *part.shape[len(part.shape) + axis + 1 :]) for part in parts}
    if len(others) != 1 or any(len(part.shape) < -axis for part in parts):
        raise InputError(f"tensors of the shapes {[part.shape for part in parts]} cannot be joined along axis {axis}")
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(part.shape[axis] for part in parts)]).tolist()
    pieces = (Stripe(start, stop, 1, part) for (start, stop), part in zip(pairwise(ends), parts, strict=True))
    return Joined(tuple(pieces), axis, ends[-1])
