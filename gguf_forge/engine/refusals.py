"""Refuses weights that are infinite or not a number, and weights that the type of the file cannot hold.

llama-quantize refuses them too, in every tensor that it reads, also in those that it copies. Quantized, such a weight
would damage the whole block that it is in, and no later check could find it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gguf_forge.engine.batches import BATCH_VALUES, Target
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.merged import of_adapters
from gguf_forge.tensors.stored import stored_in
from gguf_forge.types.rows import Rows
from gguf_forge.types.tensor_type import TensorType
from gguf_forge.types.validity import first_invalid_block

_BROKEN_ADAPTER = "get an intact copy of the adapter, or give it a smaller factor"
_BROKEN = "get an intact copy of the model; if every copy has it, the model was broken when it was trained or merged"

_TOO_LARGE = "weights of this size are hardly intact: get another copy of the model, or name a larger --tensor-type"
_LARGER = "choose BF16 or F32"


def refuse(rows: Rows, rounded: Rows, packed: Rows, target: Target, start: int) -> None:
    """Raise InputError if a weight of a checked tensor is infinite or not a number, or too large for its type.

    The kernels tell which rows are finite. This looks for the weight among the others.

    Args:
        rows: As they are read.
        rounded: The same rows in the base type.
        packed: The same in the type of the tensor.
        target: The tensor that they belong to.
        start: The number of the first row.
    """
    if target.source.is_checked:
        _refuse_weights(rows, rounded, target, start)
    if target.type != target.base:
        _refuse_packed(packed, target, start)


def _refuse_weights(rows: Rows, rounded: Rows, target: Target, start: int) -> None:
    found = first_invalid_block(np.ascontiguousarray(rounded).view(np.uint8), target.base)
    if found is None:
        return
    where = _place(target, target.base, found, start)
    if target.base.is_packed:
        raise _refused(target, f"{where}: the scale of the block is infinite or not a number", _hint(target, _BROKEN))
    if target.base.is_float and target.source.expr.dtype.is_float and np.isfinite(rows.reshape(-1)[found]):
        large = f"{float(rows.reshape(-1)[found]):g} is too large for {target.base}"
        raise _refused(target, f"{where}: {large}", _hint(target, _LARGER))
    raise _refused(target, f"{where}: the weight is infinite or not a number", _hint(target, _BROKEN))


def _refuse_packed(packed: Rows, target: Target, start: int) -> None:
    found = first_invalid_block(packed.view(np.uint8), target.type)
    if found is None:
        return
    where = _place(target, target.type, found, start)
    if target.type.is_packed:
        problem = f"{where}: the weights are too large for {target.type}, and the scale of their block is not a number"
        raise _refused(target, problem, _hint(target, _TOO_LARGE))
    raise _refused(target, f"{where}: the weight is too large for {target.type}", _hint(target, _LARGER))


def _hint(target: Target, of_model: str) -> str:
    """What to do about a weight: an adapter that has changed it is likelier to blame than the model."""
    if not any(of_adapters(target.source.expr)):
        return of_model
    return f"{_BROKEN_ADAPTER}; or {_LARGER}" if of_model == _LARGER else _BROKEN_ADAPTER


def _place(target: Target, kind: TensorType, block: int, start: int) -> str:
    """The row and column of a block, or of a value of a type without blocks."""
    row, column = divmod(block * kind.block_elements, target.placed.info.n_per_row)
    return f"row {start + row}, column {column}"


def _refused(target: Target, problem: str, hint: str) -> InputError:
    return InputError(problem, file=_adapter_of(target.source.expr), tensor=target.placed.info.name, hint=hint)


def _adapter_of(expr: TensorExpr) -> Path | None:
    """The file of the adapter that broke a weight: the first one that is not finite, or the only one there is."""
    of_files = {stored.source.path: each for each in of_adapters(expr) for stored in stored_in(each)}
    broken = (path for path, each in of_files.items() if not _is_finite(each))
    return next(broken, next(iter(of_files)) if len(of_files) == 1 else None)


def _is_finite(expr: TensorExpr) -> bool:
    step = max(1, BATCH_VALUES // expr.shape[-1])
    pieces = (expr.rows(start, min(start + step, expr.n_rows)) for start in range(0, expr.n_rows, step))
    return all(bool(np.isfinite(piece.astype(np.float32)).all()) for piece in pieces)
