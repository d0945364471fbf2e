"""Operations that declarations use: functions from the site and the sources' expressions to the target's expression."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from gguf_forge.architectures.declaration import Operation, Rule
from gguf_forge.architectures.shapes import at_layer
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tensors import row_maps
from gguf_forge.tensors.arithmetic import Add, Divide, Multiply, NegExp, Softplus
from gguf_forge.tensors.centered import Centered
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.joined import concat as joined
from gguf_forge.tensors.row_maps import (
    OneOfEqual,
    Reorder,
    Repeat,
    Slice,
    UsedRows,
    halves,
    length,
    reshaped,
    squeezed,
    transposed,
)
from gguf_forge.tensors.stored import AsI32, PlusIndex, StandIn, Widened, Zeros, as_vector

# The largest table of token ids that is read. It has room for far more tokens than any vocabulary has.
_MOST_TABLE_BYTES = 32 << 20

# A number that an operation needs: the number itself, config keys (the first that exists counts), or a function of the
# site.
Number: TypeAlias = "int | str | tuple[str, ...] | Callable[[Site], int]"


def number_of(number: Number, site: Site) -> int:
    """The value of a number at a site."""
    if isinstance(number, int):
        return number
    if callable(number):
        return number(site)
    return at_layer(site, *((number,) if isinstance(number, str) else number))


def chain(first: Operation, *others: Operation) -> Operation:
    """Operations one after the other: the first takes all sources, each other one takes the result before it."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        x = first(site, *sources)
        for operation in others:
            x = operation(site, x)
        return x

    return apply


def on_each(operation: Operation, then: Operation) -> Operation:
    """Applies an operation to each source, and `then` to all results together."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        return then(site, *(operation(site, x) for x in sources))

    return apply


def each_of(*operations: Operation, then: Operation) -> Operation:
    """Applies several operations to the same sources, and `then` to all results together."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        return then(site, *(operation(site, *sources) for operation in operations))

    return apply


def keep(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """The tensor as it is, under another name."""
    (x,) = sources
    return x


def stack(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """All experts of a layer as one tensor, with a new first axis that counts them."""
    return Stack(sources)


def concat(axis: int = -2) -> Operation:
    """The sources joined along an axis, which is counted from the end."""
    return lambda site, /, *sources: joined(sources, axis)


def transpose(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """The tensor with its last two axes swapped; a vector, such as the bias of a matrix, stays as it is."""
    (x,) = sources
    return transposed(x) if len(x.shape) > 1 else x


def squeeze(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """The tensor without its axes of length 1."""
    (x,) = sources
    return squeezed(x)


def reshape(*sizes: Number) -> Operation:
    """Another shape with the same number of values. One of the sizes may be -1: it is computed from the others."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        to, count = [number_of(size, site) for size in sizes], x.n_rows * length(x, -1)
        if -1 in to:
            at = to.index(-1)
            rest = 1
            for size in (*to[:at], *to[at + 1 :]):
                rest *= size
            to[at] = count // rest if rest else 0
        return reshaped(x, tuple(to))

    return apply


def of_width(width: Number) -> Operation:
    """The tensor as it is. If it has several axes, the last one must have this length."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        wanted = number_of(width, site)
        if len(x.shape) > 1 and length(x, -1) != wanted:
            raise InputError(f"has the shape {x.shape}, the config says that rows have {wanted} values")
        return x

    return apply


def vector(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """A scalar as a vector of one value."""
    (x,) = sources
    return as_vector(x)


def flatten(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Merges all axes except the last into one."""
    (x,) = sources
    return reshaped(x, (x.n_rows, length(x, -1)))


def unsqueeze(axis: int) -> Operation:
    """Inserts an axis of length 1 before the given axis; -1 appends it as the last axis."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        shape = list(x.shape)
        shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, 1)
        return reshaped(x, tuple(shape))

    return apply


def add(number: float) -> Operation:
    """Adds a number to each value."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        return Add(x, number)

    return apply


def multiply(number: float | Callable[[Site], float]) -> Operation:
    """Multiplies each value by a number, which may depend on the site. The factor 1 changes nothing."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        by = number(site) if callable(number) else number
        return x if by == 1 else Multiply(x, by)

    return apply


def divide(number: float | Callable[[Site], float]) -> Operation:
    """Divides each value by a number, which may depend on the site. The divisor 1 changes nothing."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        by = number(site) if callable(number) else number
        return x if by == 1 else Divide(x, by)

    return apply


def neg_exp(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """-exp(x) of each value. State space models store the logarithm of their decay, and llama.cpp needs -decay."""
    (x,) = sources
    return NegExp(x)


def target_tokens(count: Number) -> Operation:
    """Turns a draft model's table of offsets into the ids of the target model's tokens.

    Each entry is the difference between the token's id in the target and its id in the draft. `count` is the number of
    tokens of the target model.
    """

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        table = PlusIndex(x.of if isinstance(x, Widened) else x)
        if isinstance(x, StandIn):
            return table
        if len(table.shape) != 1 or table.row_bytes > _MOST_TABLE_BYTES:
            raise InputError(f"a table of tokens has the shape {list(table.shape)}")
        ids, n_tokens = table.values(np.zeros(1, np.int64)).reshape(-1), number_of(count, site)
        if ids.min() < 0 or ids.max() >= n_tokens or len(np.unique(ids)) != len(ids):
            raise InputError(f"names tokens twice, or beyond the {n_tokens} of the target")
        return table

    return apply


def token_table(source: str, count: Number) -> Rule:
    """The rule for a draft model's table of tokens, which is the file's last tensor."""
    return Rule((source,), "d2t", target_tokens(count), last=True)


def center(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """A vector with its mean subtracted."""
    (x,) = sources
    return Centered(x)


def as_i32(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Stored integers as I32."""
    (x,) = sources
    return AsI32(x.of if isinstance(x, Widened) else x)


def softplus(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """The logarithm of 1 + e to the power of each value."""
    (x,) = sources
    return Softplus(x)


def permute_rope(heads: Number) -> Operation:
    """Reorders the rows of each head from two rotary halves to interleaved pairs."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        return row_maps.permute_rope(x, number_of(heads, site))

    return apply


def reorder(axis: int, parts: tuple[Number, ...], order: tuple[int, ...], said: str) -> Operation:
    """Splits one axis into several, permutes these, and merges them again.

    Args:
        axis: The axis, counted from the end if it is negative. 0 means a matrix's rows, or a vector's only axis.
        parts: The sizes of the axes that it is split into, outermost first. One of them may be -1: it is computed from
            the others.
        order: The number of the part that comes first, second, ...
        said: A description of the new order, for people.
    """

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        sizes = [number_of(part, site) for part in parts]
        if -1 in sizes:
            rest = 1
            for size in sizes:
                rest *= size if size != -1 else 1
            sizes[sizes.index(-1)] = length(x, axis) // rest if rest else 0
        return Reorder(x, axis - len(x.shape) if axis >= 0 else axis, tuple(sizes), order, said)

    return apply


def repeat(axis: int, times: Number) -> Operation:
    """Repeats every index of an axis; the copies follow each index directly."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        return Repeat(x, axis, number_of(times, site))

    return apply


def cut(axis: int, start: Number, stop: Number | None = None) -> Operation:
    """The indices from `start` up to `stop` of an axis, which is counted from the end; without `stop`, to its end."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        return Slice(x, axis, number_of(start, site), length(x, axis) if stop is None else number_of(stop, site))

    return apply


def index(number: Number, axis: int, *, of: int | None = None) -> Operation:
    """The values at one index of an axis, which is removed.

    Args:
        number: The index.
        axis: The axis, counted from the end.
        of: The length that the axis must have; None for any length.
    """

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        at, here = len(x.shape) + axis, number_of(number, site)
        if of is not None and (at < 0 or length(x, at) != of):
            raise InputError(f"shape {x.shape} has no {of} indices along axis {axis}")
        return reshaped(Slice(x, axis, here, here + 1), (*x.shape[:at], *x.shape[at + 1 :]))

    return apply


def part_of(which: int, count: int) -> Operation:
    """Part number `which` of the first axis, which is split into `count` equal parts."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        size, rest = divmod(length(x, 0), count)
        if rest:
            raise InputError(f"{length(x, 0)} rows are not {count} equal parts")
        return Slice(x, -len(x.shape), which * size, (which + 1) * size)

    return apply


def every_second(first: int, axis: int) -> Operation:
    """Every second index from `first` along an axis: one of two interleaved tensors."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        return Slice(x, axis, first, length(x, axis), 2)

    return apply


def half(which: int, axis: int = -2) -> Operation:
    """The first (0) or second (1) half of an axis; by default the axis of each matrix's rows."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        return tuple(halves(x, axis))[which]

    return apply


def member(number: int, count: int) -> Operation:
    """Tensor `number` of `count` tensors that are stacked along the first axis."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        if len(x.shape) < 3 or x.shape[0] != count:
            raise InputError(f"shape {x.shape} is not a stack of {count} matrices")
        return reshaped(Slice(x, -len(x.shape), number, number + 1), x.shape[1:])

    return apply


def first_rows(count: Number) -> Operation:
    """The first `count` rows, or all rows if there are fewer."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        return Slice(x, -2, 0, min(number_of(count, site), length(x, -2)))

    return apply


def first_of_equal(axis: int) -> Operation:
    """The first index of an axis whose indices all have the same values."""
    return lambda site, /, *sources: OneOfEqual(sources[0], axis, 0, 1)


def rows_from(first: Number) -> Operation:
    """The rows from row `first` to the end."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        start = number_of(first, site)
        return Slice(x, -2, start, length(x, -2)) if start else x

    return apply


def skip_rows(count: Number) -> Operation:
    """The rows behind the first `count` ones, which llama.cpp does not use."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        start = number_of(count, site)
        return UsedRows(x, -2, start, length(x, -2)) if start else x

    return apply


def padded_rows(count: Number, stored: Number | None = None) -> Operation:
    """Appends rows of zeros until there are `count` rows. `stored` is how many rows the checkpoint has, for the way
    back."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        if stored is not None and isinstance(x, StandIn):
            x = StandIn(x.name, (*x.shape[:-2], number_of(stored, site), length(x, -1)))
        missing = number_of(count, site) - length(x, -2)
        if missing <= 0:
            return x
        return joined((x, Zeros((*x.shape[:-2], missing, length(x, -1)), x.dtype)))

    return apply


def by_head(heads: Number, parts: tuple[Number, ...], which: int) -> Operation:
    """Part number `which` of each head's rows. `parts` are the numbers of rows of a head's parts, in order.

    The result has the shape (heads, rows of the part, columns).
    """

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        n_head, sizes = number_of(heads, site), [number_of(part, site) for part in parts]
        if length(x, 0) != n_head * sum(sizes):
            raise InputError(
                f"has {length(x, 0)} rows, the config says {n_head} heads of {' + '.join(map(str, sizes))}"
            )
        start = sum(sizes[:which])
        return Slice(reshaped(x, (n_head, sum(sizes), length(x, -1))), -2, start, start + sizes[which])

    return apply


def experts(source: str, *parts: tuple[str, str], suffix: str = ".weight") -> tuple[Rule, ...]:
    """Rules that stack the experts' matrices. `parts` are pairs (word in the checkpoint's name, GGUF role), in the
    file's order.

    Example:
        >>> experts("model.layers.{i}.mlp.experts.{e}", ("down_proj", "ffn_down_exps"))[0].target
        'blk.{i}.ffn_down_exps.weight'
    """
    return tuple(
        Rule((f"{source}.{word}{suffix}",), f"blk.{{i}}.{role}{suffix}", stack, after="experts") for word, role in parts
    )


# The names of shared experts in families that have several. The conversion back to a checkpoint needs them.
SHARED_EXPERTS = tuple(f"model.layers.{{i}}.mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down"))

# The names that most families give their experts' matrices, in the two orders in which the reference writes them.
DOWN_GATE_UP = (("down_proj", "ffn_down_exps"), ("gate_proj", "ffn_gate_exps"), ("up_proj", "ffn_up_exps"))
GATE_UP_DOWN = (*DOWN_GATE_UP[1:], DOWN_GATE_UP[0])
# The names that Mixtral gives them.
NUMBERED = (("w1", "ffn_gate_exps"), ("w2", "ffn_down_exps"), ("w3", "ffn_up_exps"))

# The experts of most families.
MLP_EXPERTS = experts("model.layers.{i}.mlp.experts.{e}", *DOWN_GATE_UP)
