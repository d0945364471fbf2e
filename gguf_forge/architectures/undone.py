"""Undoes operations: from tensors that operations made to those that they were made of."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.arithmetic import NORM_EPSILON, FoldedNorm, Multiply, Product, Sum
from gguf_forge.tensors.codebook import Codebook
from gguf_forge.tensors.expression import Stripe, TensorExpr, Unary
from gguf_forge.tensors.joined import Joined, Stack
from gguf_forge.tensors.row_maps import OneOfEqual, Repeat, Slice, UsedRows
from gguf_forge.tensors.stored import Constant, StandIn, Zeros
from gguf_forge.types.tensor_type import F32


class Undone:
    """Collects the checkpoint's tensors while the file's tensors are undone one by one."""

    def __init__(self) -> None:
        self._found: dict[str, TensorExpr | None] = {}
        self._pieces: dict[tuple[TensorExpr, int], list[Stripe]] = defaultdict(list)

    def add(self, tree: TensorExpr, value: TensorExpr) -> None:
        """Undoes the operations of `tree`, the last one first.

        `tree` is an expression over a `StandIn`, and `value` is the file's tensor with the result of this expression.
        """
        if isinstance(tree, Constant | Zeros):
            return  # This part does not come from the checkpoint.
        while not isinstance(tree, StandIn):
            if isinstance(tree, Stack):
                for number, part in enumerate(tree.parts):
                    self.add(part, tree.member(value, number))
                return
            if isinstance(tree, Joined):
                for piece in tree.pieces:
                    self.add(piece.expr, Slice(value, tree.axis, piece.start, piece.stop, piece.step))
                return
            if isinstance(tree, FoldedNorm | Product | Sum | Codebook):
                self._add_equal(tree, value)
                return
            if not isinstance(tree, Unary):
                raise UnsupportedError(f"{type(tree).__name__} cannot be undone")
            if isinstance(tree, OneOfEqual):
                value = Repeat(value, tree.axis, tree.of.shape[tree.axis])
            elif isinstance(tree, Slice):
                self._pieces[tree.of, tree.axis].append(Stripe(tree.start, tree.stop, tree.step, value))
                if isinstance(tree, UsedRows):
                    self._pieces[tree.of, tree.axis].append(_unused(tree))
                whole = self._put_together(tree)
                if whole is None:
                    self._found.setdefault(_origin(tree), None)
                    return
                value = whole
            else:
                value = tree.inverse(value)
            tree = tree.of
        if value.shape != tree.shape:
            raise InputError(f"shape {value.shape} is not the {tree.shape} of the checkpoint", tensor=tree.name)
        self._found[tree.name] = value

    def _add_equal(self, tree: FoldedNorm | Product | Sum | Codebook, value: TensorExpr) -> None:
        """Takes parts that together give `value`, though the checkpoint's own parts may be others."""
        if isinstance(tree, Product):
            *others, last = tree.parts
            self.add(last, value)
            for part in others:
                self.add(part, Constant(np.ones(part.shape, np.float32)))
            return
        if isinstance(tree, Sum):
            for part in tree.parts:
                self.add(part, Multiply(value, 1 / len(tree.parts)))
            return
        if isinstance(tree, Codebook):
            self.add(tree.sums, value)
            self.add(tree.counts, Constant(np.ones(tree.counts.shape, np.float32)))
            return
        self.add(tree.weight if tree.gives == "weight" else tree.bias, value)
        self.add(tree.mean, Zeros(tree.shape, F32))
        self.add(tree.variance, Constant(np.full(tree.shape, 1 - NORM_EPSILON, np.float32)))

    def _put_together(self, cut: Slice) -> TensorExpr | None:
        """The tensor that the pieces were cut from; None as long as pieces are missing."""
        pieces, size = self._pieces[cut.of, cut.axis], cut.of.shape[cut.axis]
        is_there = np.zeros(size, bool)
        for piece in pieces:
            is_there[piece.start : piece.stop : piece.step] = True
        if not is_there.all():
            return None
        return pieces[0].expr if len(pieces) == 1 else Joined(tuple(pieces), cut.axis, size)

    def unfinished(self) -> list[str]:
        """The names of the tensors that still lack pieces."""
        return [name for name, expr in self._found.items() if expr is None]

    def found(self) -> dict[str, TensorExpr]:
        return {name: expr for name, expr in self._found.items() if expr is not None}


def _unused(cut: UsedRows) -> Stripe:
    """The rows in front of a part, as zeros."""
    shape = list(cut.of.shape)
    shape[cut.axis] = cut.start
    return Stripe(0, cut.start, 1, Zeros(tuple(shape), F32))


def _origin(tree: TensorExpr) -> str:
    """The name of the stand-in at the start of a chain of operations."""
    below = tree
    while isinstance(below, Unary):
        below = below.of
    return below.name if isinstance(below, StandIn) else ""
