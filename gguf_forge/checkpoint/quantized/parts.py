"""Common functions of the schemes: they find the parts of a weight and combine the usual ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.checkpoint.quantized.scheme import Tensors
from gguf_forge.errors import InputError, UnsupportedError, naming
from gguf_forge.tensors.codes import Lookup, RowCodes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.packed import RepackNvfp4
from gguf_forge.tensors.row_maps import reshaped
from gguf_forge.tensors.stored import Constant, Stored, StoredElements
from gguf_forge.types.element_type import ELEMENT_TYPES, ElementType

# The most bytes of a tensor that describes one weight, such as its shape, a scale or a short text.
_SMALL_BYTES = 1 << 16
# The values of the codes of a 4-bit float (E2M1) without sign. Source: the MX specification of Open Compute.
_HALF = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = Constant(np.array((*_HALF, *(-value for value in _HALF)), np.float32))


def of_weight(name: str) -> AbstractContextManager[None]:
    """Adds the name of this weight to errors of the block."""
    return naming(name, hint="is config.json that of these weights?")


def part(stored: Tensors, weight: str, name: str) -> TensorExpr:
    """A part of a weight.

    Raises:
        InputError: the part is missing.
    """
    if name not in stored:
        raise InputError(f"its part {name.rpartition('.')[2]} is missing", tensor=weight, hint="is a shard missing?")
    return stored[name]


def matrix(x: TensorExpr) -> TensorExpr:
    """The tensor, which must be a matrix.

    Raises:
        InputError: it has another number of dimensions.
    """
    if len(x.shape) != 2:
        raise InputError(f"a part of shape {x.shape} is not a matrix")
    return x


def integers(x: TensorExpr) -> TensorExpr:
    """The tensor, which must be one of integers.

    Raises:
        InputError: it holds other numbers, whose bytes would be taken for codes.
    """
    if not isinstance(x.dtype, ElementType) or x.dtype.dtype.kind not in "iu":
        raise InputError(f"its codes are numbers of type {x.dtype}, not integers")
    return x


def endings(stored: Tensors, end: str) -> tuple[str, ...]:
    """The beginnings of all names that end in `end`, in order."""
    return tuple(name.removesuffix(end) for name in stored if name.endswith(end))


def put_together(
    stored: Tensors, stems: Iterable[str], parts: tuple[str, ...], make: Callable[[str], TensorExpr]
) -> Tensors:
    """The logical tensors, if the parts of weights have other names than the weights.

    Weights come after all other tensors, because the reference's converter adds combined weights at the end.

    Args:
        stored: All tensors.
        stems: The beginnings of the names of weights.
        parts: The endings of the names of their parts.
        make: Makes the weight for a stem.
    """
    weights = {f"{stem}.weight": make(stem) for stem in stems}
    used = {stem.removesuffix(".weight") + end for stem in weights for end in parts}
    return {name: expr for name, expr in stored.items() if name not in used} | weights


def without(stored: Tensors, ends: tuple[str, ...]) -> Tensors:
    """The tensors except those whose names have one of these endings."""
    return {name: expr for name, expr in stored.items() if not name.endswith(ends)}


def viewed(x: TensorExpr, shape: tuple[int, ...]) -> TensorExpr:
    """Stored numbers in another shape. They keep their order in the file, and rows may have any length."""
    if isinstance(x, Stored) and prod(shape) == prod(x.shape):
        return replace(x, shape=shape)
    return reshaped(x, shape)


def bits_as(x: TensorExpr, name: str) -> TensorExpr:
    """Reinterprets stored one-byte numbers as another one-byte type."""
    if not isinstance(x, Stored) or x.dtype.row_bytes(1) != 1:
        raise InputError(f"has numbers of type {x.dtype}, not of one byte")
    return StoredElements(x.name, x.source, x.offset, x.shape, ELEMENT_TYPES[name])


def numbers_of(x: TensorExpr) -> NDArray[Any]:
    """The values of a small tensor that describes how a weight is stored. They are read during planning."""
    if x.dtype.nbytes(x.shape) > _SMALL_BYTES:
        raise InputError(f"a tensor of shape {x.shape} says how a weight is stored; that takes a few numbers")
    return x.rows(0, x.n_rows).reshape(-1)


def shape_of(x: TensorExpr) -> tuple[int, int]:
    """The shape of a matrix that is stored as a tensor of two numbers."""
    numbers = numbers_of(x)
    sizes = numbers.tolist()
    if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise InputError(f"its shape is {sizes!r:.60}, not two whole numbers")
    return sizes[0], sizes[1]


def scaled(
    name: str,
    codes: TensorExpr,
    scale: TensorExpr,
    block: tuple[int, int] | None,
    zeros: TensorExpr | int = 0,
) -> TensorExpr:
    """Codes times their scales, which are for blocks, for rows, or for the whole tensor.

    Args:
        name: The name of the weight, for messages.
        codes: The numbers to scale.
        scale: The scales.
        block: The size of blocks; None for scales of rows or of the tensor.
        zeros: The numbers to subtract from codes: one for each scale, or one for all.

    Raises:
        InputError: the scale has another shape than the codes need.
    """
    with of_weight(name):
        if block is not None:
            return Scaled(codes, scale, *block, zeros)
        n_scales = scale.n_rows * scale.shape[-1]
        one = n_scales == 1
        if not one and n_scales != codes.n_rows:
            raise InputError(f"scales of shape {scale.shape} do not fit {codes.n_rows} rows")
        shape = (1,) * max(2, len(codes.shape)) if one else (*codes.shape[:-1], 1)
        if isinstance(zeros, TensorExpr):
            zeros = reshaped(zeros, shape)
        return Scaled(codes, reshaped(scale, shape), codes.n_rows if one else 1, codes.shape[-1], zeros)


def scaled_in_place(
    stored: Tensors, make: Callable[[str, TensorExpr, TensorExpr], TensorExpr] | None = None
) -> Tensors:
    """The logical tensors, if weights have their own names and each has a tensor with the ending `_scale`.

    Args:
        stored: All tensors.
        make: Makes a weight from name, codes and scale. None for codes times the scales of rows or of the tensor.
    """
    found = dict(stored)
    for stem in endings(stored, ".weight_scale"):
        name = f"{stem}.weight"
        codes, scale = part(stored, f"{name}_scale", name), found.pop(f"{name}_scale")
        found[name] = make(name, codes, scale) if make else scaled(name, codes, scale, None)
    return found


def mxfp4(name: str, packed: TensorExpr, scales: TensorExpr) -> TensorExpr:
    """4-bit floats in blocks of 32 that share a power of two (a byte, biased by 127), as float32.

    Source: the MX specification of Open Compute.
    """
    with of_weight(name):
        width = packed.shape[-1] * packed.dtype.row_bytes(1) * 2
        return Scaled(Lookup(RowCodes(packed, 4, width), E2M1), bits_as(scales, "F8_E8M0"), 1, 32, kind="MXFP4")


def nvfp4(
    name: str,
    packed: TensorExpr,
    scales: TensorExpr,
    tensor_scale: TensorExpr | None,
    input_scale: TensorExpr | None,
    *,
    divides: bool = False,
    wide_input: bool = False,
) -> TensorExpr:
    """4-bit floats in blocks of 16 with e4m3 scales, repacked as ggml's blocks.

    Args:
        name: The name of the weight, for messages.
        packed: The codes, two per byte. The first is in the low half.
        scales: The scales of the blocks.
        tensor_scale: One number by which all values are multiplied; None for 1.
        input_scale: The same for the activations that the weight is multiplied with.
        divides: Whether values are divided by these two numbers instead.
        wide_input: Whether the activations keep 16 bits instead of 4.
    """
    with of_weight(name):
        if str(scales.dtype) != "F8_E4M3":
            raise UnsupportedError(f"scales of type {scales.dtype} beside packed codes are not known")
        given, of_input = (_factor(x, divides=divides) for x in (tensor_scale, input_scale))
        return RepackNvfp4(packed, scales, given, of_input, wide_input)


def _factor(x: TensorExpr | None, *, divides: bool) -> float:
    if x is None:
        return 1.0
    numbers = numbers_of(x).astype(np.float32)
    if len(numbers) != 1 or not np.isfinite(numbers[0]) or numbers[0] == 0:
        raise InputError(f"its scale is {numbers[:4].tolist()}, not one number")
    return float(np.float32(1) / numbers[0] if divides else numbers[0])
