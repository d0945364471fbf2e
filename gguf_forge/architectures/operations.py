"""Operations that rules use: from the config and the sources' expressions to the target's expression."""

from __future__ import annotations

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Operation, Rule
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import (
    Add,
    MergeLastAxes,
    PermuteRope,
    RepackMxfp4,
    Reshape,
    Slice,
    Stack,
    TensorExpr,
    Transpose,
)


def chain(*operations: Operation) -> Operation:
    """One operation after the other, on one tensor."""

    def apply(config: Config, x: TensorExpr) -> TensorExpr:
        for operation in operations:
            x = operation(config, x)
        return x

    return apply


def keep(config: Config, x: TensorExpr) -> TensorExpr:
    """The tensor as it is, under another name."""
    return x


def stack(config: Config, *experts: TensorExpr) -> TensorExpr:
    """All experts of a layer behind one another."""
    return Stack(experts)


def transpose(config: Config, x: TensorExpr) -> TensorExpr:
    """The last two axes swapped."""
    return Transpose(x)


def add(number: float) -> Operation:
    """Plus a number."""
    return lambda config, x: Add(x, number)


def permute_rope(*heads: str) -> Operation:
    """Rotary rows from two halves to interleaved pairs; the number of heads is the first of these keys."""
    return lambda config, x: PermuteRope(x, config.integer(*heads))


def every_second(first: int, axis: int) -> Operation:
    """Every second index from `first` along an axis: one of two interleaved tensors."""

    def apply(config: Config, x: TensorExpr) -> TensorExpr:
        return Slice(x, axis, first, x.shape[axis], 2)

    return apply


def half(which: int) -> Operation:
    """The first (0) or second (1) half of each matrix's rows."""

    def apply(config: Config, x: TensorExpr) -> TensorExpr:
        size = x.shape[-2]
        if size % 2:
            raise InputError(f"{size} rows have no two halves")
        return Slice(x, -2, which * size // 2, (which + 1) * size // 2)

    return apply


def first_rows(key: str) -> Operation:
    """As many rows as the config says under `key`; all of them if there are no more."""
    return lambda config, x: Slice(x, -2, 0, min(config.integer(key), x.shape[-2]))


def by_head(heads: str, parts: tuple[str, ...], part: str) -> Operation:
    """One part of each head's rows: config keys name the number of heads, and the rows of all parts in order.

    Gives (heads, rows of the part, C).
    """

    def apply(config: Config, x: TensorExpr) -> TensorExpr:
        n_head, sizes = config.integer(heads), [config.integer(key) for key in parts]
        if x.shape[0] != n_head * sum(sizes):
            raise InputError(f"has {x.shape[0]} rows, the config says {n_head} heads of {' + '.join(map(str, sizes))}")
        which = parts.index(part)
        start = sum(sizes[:which])
        return Slice(Reshape(x, (n_head, sum(sizes))), -2, start, start + sizes[which])

    return apply


def repack_mxfp4(part: Operation = keep) -> Operation:
    """OpenAI's blocks and scales as ggml's MXFP4; `part` is taken of both first."""

    def apply(config: Config, blocks: TensorExpr, scales: TensorExpr) -> TensorExpr:
        return RepackMxfp4(part(config, MergeLastAxes(blocks)), part(config, scales))

    return apply


def experts(source: str, *parts: tuple[str, str]) -> tuple[Rule, ...]:
    """Rules that stack the experts' matrices; `parts` are (checkpoint's word, GGUF role) in the file's order.

    Example:
        >>> experts("model.layers.{i}.mlp.experts.{e}", ("down_proj", "ffn_down_exps"))[0].target
        'blk.{i}.ffn_down_exps.weight'
    """
    return tuple(
        Rule((f"{source}.{word}.weight",), f"blk.{{i}}.{role}.weight", stack, after="experts") for word, role in parts
    )


# The names that most families give their experts' matrices, in the order in which the reference writes them.
MLP_EXPERTS = experts(
    "model.layers.{i}.mlp.experts.{e}",
    ("down_proj", "ffn_down_exps"),
    ("gate_proj", "ffn_gate_exps"),
    ("up_proj", "ffn_up_exps"),
)
