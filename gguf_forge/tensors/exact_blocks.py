"""Finds the ggml blocks that hold a quantized tensor exactly, whatever format it is stored in.

A value (q - z) * s of a code q of few bits, with a scale s that float16 holds, is exact in float32, and also in a ggml
block with a level for q - z. So a proof needs the scales and zero points alone. They are a small part of the weights,
and are read some rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.codes import U8, Codes, Gathered, Lookup, RowCodes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.tensors.joined import Joined, Stack
from gguf_forge.tensors.packed import NO_E8M0, RepackMxfp4, RepackNvfp4
from gguf_forge.tensors.row_maps import Reorder, Reshape, Slice, Transpose, reshaped
from gguf_forge.tensors.scaled_blocks import BLOCK, RepackScaled
from gguf_forge.tensors.stored import Constant, Stored, StoredElements
from gguf_forge.types.tensor_type import F32, MXFP4, NVFP4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, TensorType

# The levels that the blocks of a type have, the smallest type first.
_LEVELS = {Q4_0: (-8, 7), Q5_0: (-16, 15), Q8_0: (-128, 127)}
# The codes that fit a type with a minimum for each block.
_CODES = {Q4_1: (0, 15), Q5_1: (0, 31)}
_BY_SIZE = (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0)
# Bytes of numbers that are looked at in one piece, as float32.
_PIECE_BYTES = 4 << 20
_E2M1 = np.array(MXFP4.levels.values if MXFP4.levels else (), np.float32)

_Leaf = Callable[[Scaled], TensorExpr | None]


def as_exact_blocks(expr: TensorExpr) -> TensorExpr | None:
    """A tensor as ggml's blocks of the smallest type that holds its very values; None if there is no such type.

    Reads scales, zero points and group indices, and no code.

    Raises:
        InputError: a scale is infinite or not a number.
    """
    aligned = _mapped(expr, _along_columns)
    if aligned is None:
        return None
    types: tuple[TensorType, ...] = (MXFP4, NVFP4, *_BY_SIZE)
    for leaf in {id(leaf): leaf for leaf in _leaves(aligned)}.values():  # stacked experts may be parts of one tensor
        types = tuple(kind for kind in _types_of(leaf) if kind in types)
        if not types:
            return None
    try:
        return _mapped(aligned, lambda leaf: _repacked(leaf, types[0]))
    except (InputError, UnsupportedError):
        return None  # an operation on the tensor would cut blocks


def is_mxfp4(expr: TensorExpr) -> bool:
    """Whether a tensor is made of MXFP4: 4-bit floats (E2M1) in blocks of 32 that share a power of two."""
    return _is_e2m1(expr, "F8_E8M0", BLOCK)


def is_nvfp4(expr: TensorExpr) -> bool:
    """Whether a tensor is made of whole blocks of NVFP4: E2M1 in blocks of 16 that share an e4m3 number."""
    return _is_e2m1(expr, "F8_E4M3", 16) and expr.shape[-1] % 64 == 0


def _is_e2m1(expr: TensorExpr, scales: str, group: int) -> bool:
    """Whether a tensor is made of E2M1 in groups of columns, with scales of a type."""
    if not isinstance(expr, Scaled) or not isinstance(expr.codes, Lookup):
        return False
    codes, levels = expr.codes.codes, expr.codes.levels
    if not isinstance(codes, RowCodes) or codes.order or not isinstance(codes.of, Stored):
        return False
    fits = expr.scales.dtype.name == scales and (expr.row_block, expr.column_block, expr.zeros) == (1, group, 0)
    return fits and expr.shifts is None and isinstance(levels, Constant) and np.array_equal(levels.values, _E2M1)


def mxfp4_blocks(expr: TensorExpr) -> TensorExpr:
    """A tensor of MXFP4 as ggml's blocks. No number is read, so a scale that is no number is found in writing.

    Raises:
        InputError: the tensor is not made of MXFP4.
    """
    if not is_mxfp4(expr):
        raise InputError(
            "it is not stored in MXFP4, as others of its stack are", hint="get an intact copy of the model"
        )
    assert isinstance(expr, Scaled) and isinstance(expr.codes, Lookup) and isinstance(expr.codes.codes, RowCodes)
    return RepackMxfp4(_bytes_of(expr.codes.codes.of), expr.scales)


def is_quantized(expr: TensorExpr) -> bool:
    """Whether a tensor is made of codes with scales."""
    return isinstance(expr, Scaled) or any(is_quantized(child) for child in expr.children())


def _mapped(expr: TensorExpr, leaf: _Leaf) -> TensorExpr | None:
    """The same operations on other leaves; None if an operation does more than to move whole rows or whole blocks."""
    if isinstance(expr, Scaled):
        return leaf(expr)
    if isinstance(expr, Reshape) and isinstance(expr.of, Scaled):
        seen = _reshaped(expr.of, expr.to)
        return leaf(seen) if seen is not None else None
    if isinstance(expr, Stack):
        parts = tuple(_mapped(part, leaf) for part in expr.parts)
        return Stack(tuple(filter(None, parts))) if None not in parts else None
    if isinstance(expr, Joined) and expr.axis != -1:
        pieces = tuple(piece._replace(expr=_mapped(piece.expr, leaf)) for piece in expr.pieces)  # type: ignore[arg-type]
        return replace(expr, pieces=pieces) if all(piece.expr is not None for piece in pieces) else None
    if isinstance(expr, Unary) and (expr.acts_on == "rows" or isinstance(expr, Reorder)):
        below = _mapped(expr.of, leaf)
        return replace(expr, of=below) if below is not None else None
    return None


def _leaves(expr: TensorExpr) -> Iterator[Scaled]:
    if isinstance(expr, Scaled):
        yield expr
    else:
        for child in expr.children():
            yield from _leaves(child)


def _reshaped(of: Scaled, to: tuple[int, ...]) -> Scaled | None:
    """Codes with scales in another shape, where groups of columns stay whole; None where they do not."""
    group = of.column_block
    if of.row_block != 1 or of.shape[-1] % group or to[-1] % group:
        return None

    def of_groups(numbers: TensorExpr) -> TensorExpr:
        return reshaped(numbers, (*to[:-1], to[-1] // group))

    return replace(
        of,
        codes=reshaped(of.codes, to),
        scales=of_groups(of.scales),
        zeros=of_groups(of.zeros) if isinstance(of.zeros, TensorExpr) else of.zeros,
        shifts=of_groups(of.shifts) if of.shifts is not None else None,
    )


def _along_columns(of: Scaled) -> Scaled | None:
    """The same values, with scales for whole blocks of 32 columns; None if columns of one block have several scales.

    GPTQ's index of groups, in its activation order, names a group for each column. Blocks need neighbouring columns
    with the same group.
    """
    if of.shape[-1] % BLOCK:
        return None
    if isinstance(of.scales, Gathered) and of.column_block == 1:
        index = of.scales.index
        if index.row_bytes > _PIECE_BYTES:
            return None
        groups = index.rows(0, 1).reshape(-1, BLOCK)
        if (groups != groups[:, :1]).any():
            return None
        first = Slice(index, -1, 0, index.shape[0], BLOCK)

        def of_blocks(numbers: TensorExpr) -> TensorExpr:
            return replace(numbers, index=first) if isinstance(numbers, Gathered) else numbers

        zeros = of_blocks(of.zeros) if isinstance(of.zeros, TensorExpr) else of.zeros
        return replace(of, scales=of_blocks(of.scales), zeros=zeros, column_block=BLOCK)
    if of.column_block % BLOCK == 0 or of.scales.shape[-1] == 1 or is_nvfp4(of):
        return of
    return None


def _types_of(of: Scaled) -> tuple[TensorType, ...]:
    """The types whose blocks hold the values, the smallest first."""
    if isinstance(of.codes, Lookup):
        if is_nvfp4(of):
            return (NVFP4,) if _has_no_sign(of.scales) else ()
        if not is_mxfp4(of):
            return ()
        _check_exponents(of.scales)
        return (MXFP4,)
    low, high = _code_range(of.codes)
    if low == high:
        return ()
    facts = _Facts.read(of)
    if not facts.fits_f16:
        return ()
    by_level = {kind for kind, (least, most) in _LEVELS.items() if facts.levels_fit(low, high, least, most)}
    by_code = {kind for kind, (least, most) in _CODES.items() if least <= low and high <= most and facts.has_minima}
    return tuple(kind for kind in _BY_SIZE if kind in by_level | by_code)


def _repacked(of: Scaled, kind: TensorType) -> TensorExpr:
    if kind == NVFP4:
        assert isinstance(of.codes, Lookup) and isinstance(of.codes.codes, RowCodes)
        return RepackNvfp4(_bytes_of(of.codes.codes.of), of.scales)
    return mxfp4_blocks(of) if kind == MXFP4 else RepackScaled(of, kind)


def _bytes_of(packed: TensorExpr) -> TensorExpr:
    """Stored words as the bytes that they are made of."""
    assert isinstance(packed, Stored)
    return StoredElements(packed.name, packed.source, packed.offset, (*packed.shape[:-1], packed.row_bytes), U8)


def _has_no_sign(scales: TensorExpr) -> bool:
    """Whether all scales are without the sign for which NVFP4's blocks have no bit."""
    return not any((some.view(np.uint8) & 0x80).any() for (some,) in _pieces(scales))


def _check_exponents(scales: TensorExpr) -> None:
    """Raises InputError if a scale is not a number. ggml's blocks would take it for a number."""
    for (some,) in _pieces(scales):
        if (some.view(np.uint8) == NO_E8M0).any():
            raise InputError("a scale is not a number", hint="get an intact copy of the model")


def _code_range(codes: TensorExpr) -> tuple[int, int]:
    """The least and the greatest code that the stored form has room for; equal numbers if they are not integers."""
    if isinstance(codes, Codes):
        return 0, (1 << codes.bits) - 1
    if isinstance(codes, Unary):
        return _code_range(codes.of)
    return {"U8": (0, 255), "I8": (-128, 127)}.get(codes.dtype.name, (0, 0))


@dataclass
class _Facts:
    """What the scales and zero points of a tensor have in common.

    Attributes:
        fits_f16: Whether float16 holds every scale.
        zeros: The least and the greatest zero point; None if one of them is not a whole number.
        has_minima: Whether float16 holds the value of code 0 of every block.
    """

    fits_f16: bool = True
    zeros: tuple[float, float] | None = (np.inf, -np.inf)
    has_minima: bool = True

    @classmethod
    def read(cls, of: Scaled) -> _Facts:
        """Looks at all numbers, some rows at a time, until nothing is left that could be found."""
        facts = cls()
        second = of.shifts if of.shifts is not None else of.zeros
        for scales, *more in _pieces(of.scales, *([second] if isinstance(second, TensorExpr) else [])):
            given = more[0] if more else np.full((1, 1), second, np.float64)
            facts._add(scales.astype(np.float64), given.astype(np.float64), are_shifts=of.shifts is not None)
            if not facts.fits_f16 or not (facts.zeros or facts.has_minima):
                break
        return facts

    def _add(self, scales: NDArray[np.float64], given: NDArray[np.float64], *, are_shifts: bool) -> None:
        if not (np.isfinite(scales).all() and np.isfinite(given).all()):
            raise InputError(
                "a scale or zero point is infinite or not a number", hint="get an intact copy of the model"
            )
        self.fits_f16 = self.fits_f16 and _is_f16(scales)
        # With a scale below zero, or zero itself, a sum of two numbers would lose the sign of zeros.
        positive = bool((scales > 0).all())
        with np.errstate(divide="ignore", invalid="ignore"):
            zeros = -given / scales if are_shifts else given
        minima = given if are_shifts else -given * scales
        self.has_minima = self.has_minima and (are_shifts or positive) and _is_f16(minima)
        if self.zeros is not None:
            whole = (zeros == np.rint(zeros)).all() and (positive or not are_shifts)
            low, high = self.zeros
            self.zeros = (min(low, float(zeros.min())), max(high, float(zeros.max()))) if whole else None

    def levels_fit(self, low: int, high: int, least: int, most: int) -> bool:
        """Whether codes `low` to `high` less their zero points are levels from `least` to `most`."""
        return self.zeros is not None and low - self.zeros[1] >= least and high - self.zeros[0] <= most


def _is_f16(numbers: NDArray[np.float64]) -> bool:
    with np.errstate(over="ignore"):
        return bool((numbers.astype(np.float16) == numbers).all())


def _pieces(*numbers: TensorExpr) -> Iterator[tuple[NDArray[np.generic], ...]]:
    """The numbers of tensors of one shape, some rows at a time, in the order in which they are stored: a proof looks at
    each number by itself."""
    below = tuple(map(_in_stored_order, numbers))
    step = max(1, _PIECE_BYTES // F32.row_bytes(below[0].shape[-1]))
    for start in range(0, below[0].n_rows, step):
        rows = np.arange(start, min(start + step, below[0].n_rows))
        yield tuple(each.take(rows) for each in below)


def _in_stored_order(numbers: TensorExpr) -> TensorExpr:
    return _in_stored_order(numbers.of) if isinstance(numbers, Gathered | Transpose) else numbers
