"""What was done to a tensor between the checkpoint and the file, in words: from its expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from gguf_forge.engine.batches import RowSource
from gguf_forge.tensors.expression import (
    Add,
    BigEndian,
    Constant,
    MergeLastAxes,
    PermuteRope,
    RepackMxfp4,
    Reshape,
    Slice,
    Stack,
    Stored,
    TensorExpr,
    Transpose,
)
from gguf_forge.types.tensor_type import TensorType


def transforms_of(expr: TensorExpr) -> tuple[str, ...]:
    """What happens to the values of a tensor on their way to the file, in order.

    Example:
        >>> import numpy as np
        >>> transforms_of(Transpose(Add(Constant(np.zeros((2, 4), np.float32)), 1.0)))
        ('computed from the config', 'plus 1', 'transposed')
    """
    # equal parts, of a stack of experts, have equal transforms
    below = dict.fromkeys(word for child in children(expr) for word in transforms_of(child))
    own = _WORDS.get(type(expr), _name)(expr)
    return (*below, own) if own else tuple(below)


def steps_of(source: RowSource, kind: TensorType) -> tuple[str, ...]:
    """`transforms_of` a tensor, and how its numbers are rounded and packed to `kind`."""
    expr = source.expr
    steps = list(transforms_of(expr))
    if not expr.dtype.is_float:
        return (*steps, f"unpacked and packed to {kind}") if expr.dtype != kind else tuple(steps)
    if source.base not in (expr.dtype, kind):
        steps.append(f"rounded to {source.base}")
    if not kind.is_float:
        steps.append(f"packed to {kind}")
    elif kind != expr.source_type:
        steps.append(f"as {kind}")
    if source.importance is not None and not kind.is_float:
        steps.append("by importance")
    return tuple(steps)


def stored_in(expr: TensorExpr) -> Iterator[Stored]:
    """The tensors of files that an expression is made of."""
    if isinstance(expr, Stored):
        yield expr
    for child in children(expr):
        yield from stored_in(child)


def children(expr: TensorExpr) -> Iterator[TensorExpr]:
    """The expressions that one is made of directly."""
    for field in fields(expr):  # type: ignore[arg-type]
        value = getattr(expr, field.name)
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, TensorExpr):
                yield child


def _name(expr: TensorExpr) -> str:
    """An operation without words of its own: its name in words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", type(expr).__name__).lower()


_ORDINALS = {2: "second", 3: "3rd"}


def _slice(expr: Slice) -> str:
    what = "columns" if expr.axis == -1 else "rows"
    if expr.step > 1:
        return f"every {_ORDINALS.get(expr.step, f'{expr.step}th')} of its {what} from {expr.start}"
    return f"{what} {expr.start} to {expr.stop - 1} of {expr.of.shape[expr.axis]}"


_WORDS: dict[type[TensorExpr], Callable[[Any], str]] = {
    Stored: lambda expr: "",
    Reshape: lambda expr: "",
    BigEndian: lambda expr: "from big-endian",
    Constant: lambda expr: "computed from the config",
    PermuteRope: lambda expr: f"rows permuted for rotary embedding, {expr.n_head} heads",
    Slice: _slice,
    Transpose: lambda expr: "transposed",
    Add: lambda expr: f"plus {expr.number:g}",
    Stack: lambda expr: f"{len(expr.parts)} experts stacked",
    MergeLastAxes: lambda expr: "last two axes merged",
    RepackMxfp4: lambda expr: "MXFP4 bits moved to ggml's places",
}
