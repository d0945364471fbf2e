"""Describes in words what was done to a tensor between the checkpoint and the file. Its expression tells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gguf_forge.engine.batches import RowSource
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.types.tensor_type import TensorType


def transforms_of(expr: TensorExpr) -> tuple[str, ...]:
    """What happens to the values of a tensor on their way to the file, in order.

    Example:
        >>> import numpy as np
        >>> from gguf_forge.tensors.arithmetic import Add
        >>> from gguf_forge.tensors.row_maps import Transpose
        >>> from gguf_forge.tensors.stored import Constant
        >>> transforms_of(Transpose(Add(Constant(np.zeros((2, 4), np.float32)), 1.0)))
        ('computed from the config', 'plus 1', 'transposed')
    """
    # equal parts, of a stack of experts, have equal transforms
    of = (expr.of,) if isinstance(expr, Unary) else expr.children()
    below = dict.fromkeys(word for child in of for word in transforms_of(child))
    return (*below, expr.words) if expr.words else tuple(below)


def omissions(expr: TensorExpr) -> Iterator[tuple[str, TensorExpr]]:
    """A tensor as it is if one operation is left out, for each that is known to be left out, and the words for it.

    Example:
        >>> import numpy as np
        >>> from gguf_forge.tensors.arithmetic import Add
        >>> from gguf_forge.tensors.row_maps import Transpose
        >>> from gguf_forge.tensors.stored import Constant
        >>> [words for words, _ in omissions(Transpose(Add(Constant(np.zeros((2, 4), np.float32)), 1.0)))]
        ['without adding 1']
    """
    if not isinstance(expr, Unary):
        return
    if expr.omission is not None:
        yield expr.omission, expr.of
    for words, below in omissions(expr.of):
        yield words, replace(expr, of=below)


def steps_of(source: RowSource, tensor_type: TensorType) -> tuple[str, ...]:
    """`transforms_of` a tensor, and how its numbers are rounded and packed to `tensor_type`."""
    expr = source.expr
    steps = list(transforms_of(expr))
    if not expr.dtype.is_float:
        return (*steps, f"unpacked and packed to {tensor_type}") if expr.dtype != tensor_type else tuple(steps)
    if source.base not in (expr.dtype, tensor_type):
        steps.append(f"rounded to {source.base}")
    if not tensor_type.is_float:
        steps.append(f"packed to {tensor_type}")
    elif tensor_type != expr.source_type:
        steps.append(f"as {tensor_type}")
    if source.importance is not None and not tensor_type.is_float:
        steps.append("by importance")
    return tuple(steps)
