"""What is in a packed block: the fields of every ggml type as NumPy structured dtypes.

The fields have ggml's names and order. Where ggml keeps two things in one array they are apart here: `signs_scales` of
IQ3_XXS. Source: ggml-common.h of llama.cpp; the comments of csrc/blocks.h say which bits belong to which element.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import UsageError
from gguf_forge.types.tensor_type import TensorType, tensor_type

# The one field of a type that isn't packed.
VALUE = "value"

_Field = tuple[str, str] | tuple[str, str, int] | tuple[str, str, tuple[int, ...]]

_D: _Field = ("d", "<f2")
_FIELDS: dict[str, tuple[_Field, ...]] = {
    "Q4_0": (_D, ("qs", "u1", 16)),
    "Q4_1": (_D, ("m", "<f2"), ("qs", "u1", 16)),
    "Q5_0": (_D, ("qh", "u1", 4), ("qs", "u1", 16)),
    "Q5_1": (_D, ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)),
    "Q8_0": (_D, ("qs", "i1", 32)),
    "Q8_1": (_D, ("s", "<f2"), ("qs", "i1", 32)),
    "Q2_K": (("scales", "u1", 16), ("qs", "u1", 64), _D, ("dmin", "<f2")),
    "Q3_K": (("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), _D),
    "Q4_K": (_D, ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)),
    "Q5_K": (_D, ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)),
    "Q6_K": (("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), _D),
    "Q8_K": (("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)),
    "IQ2_XXS": (_D, ("qs", "<u4", (8, 2))),
    "IQ2_XS": (_D, ("qs", "<u2", 32), ("scales", "u1", 8)),
    "IQ2_S": (_D, ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)),
    "IQ3_XXS": (_D, ("qs", "u1", 64), ("signs_scales", "<u4", 8)),
    "IQ3_S": (_D, ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)),
    "IQ1_S": (_D, ("qs", "u1", 32), ("qh", "<u2", 8)),
    "IQ1_M": (("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)),
    "IQ4_NL": (_D, ("qs", "u1", 16)),
    "IQ4_XS": (_D, ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)),
    "TQ1_0": (("qs", "u1", 48), ("qh", "u1", 4), _D),
    "TQ2_0": (("qs", "u1", 64), _D),
    "MXFP4": (("e", "u1"), ("qs", "u1", 16)),
    "NVFP4": (("d", "u1", 4), ("qs", "u1", 32)),
    "Q1_0": (_D, ("qs", "u1", 16)),
    "Q2_0": (_D, ("qs", "u1", 16)),
}
_VALUES = {"I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F64": "<f8"}


@cache
def block_dtype(kind: TensorType) -> np.dtype[Any]:
    """One block as a structured dtype of `kind.block_bytes` bytes.

    Types that aren't packed have the one field `value`.

    Example:
        >>> from gguf_forge.types.tensor_type import tensor_type
        >>> block_dtype(tensor_type("Q4_K")).names
        ('d', 'dmin', 'scales', 'qs')
    """
    if kind.block_elements == 1:
        return np.dtype([(VALUE, _VALUES.get(kind.name, kind.dtype))])
    return np.dtype(list(_FIELDS[kind.name]))


def unpack_blocks(packed: NDArray[np.uint8], kind: str | TensorType) -> NDArray[np.void]:
    """The fields of packed blocks, by name.

    Args:
        packed: uint8 array (..., b): the last axis is a whole number of the type's blocks.
        kind: The tensor type that it holds, such as "Q4_K", in any case.

    Returns:
        Structured array (..., blocks): a view of `packed` where its last axis is contiguous. Bytes that hold several
        small numbers (`qs` and `scales` of most types) stay bytes.

    Raises:
        UsageError: the type is unknown, or the shape or dtype does not fit.

    Example:
        >>> from gguf_forge import quantize
        >>> blocks = unpack_blocks(quantize(np.ones((4, 64), np.float32), "Q8_0"), "Q8_0")
        >>> blocks.shape, float(blocks["d"][0, 0]), int(blocks["qs"][0, 0, 31])
        ((4, 2), 0.007874011993408203, 127)
    """
    kind = tensor_type(kind)
    if packed.dtype != np.uint8:
        raise UsageError(f"packed blocks must be uint8, not {packed.dtype.name}", hint="view them as uint8")
    if packed.ndim == 0 or packed.shape[-1] % kind.block_bytes:
        blocks = f"{kind} blocks of {kind.block_bytes} bytes"
        raise UsageError(f"rows of shape {packed.shape} are not a whole number of {blocks}")
    if packed.strides[-1] != 1:
        packed = np.ascontiguousarray(packed)
    return packed.view(block_dtype(kind))


def field_at(kind: TensorType, byte: int) -> str:
    """The field that a byte of a block belongs to, with the index of its item.

    Args:
        kind: The type of the block.
        byte: From 0 to `kind.block_bytes - 1`.

    Raises:
        UsageError: the block has no such byte.

    Example:
        >>> from gguf_forge.types.tensor_type import tensor_type
        >>> field_at(tensor_type("Q4_K"), 7), field_at(tensor_type("Q4_K"), 3)
        ('scales[3]', 'dmin')
    """
    fields: Any = block_dtype(kind).fields
    for name, (item, offset, *_) in fields.items():
        if offset <= byte < offset + item.itemsize:
            index = np.unravel_index((byte - offset) // item.base.itemsize, item.shape) if item.shape else ()
            return f"{name}{''.join(f'[{at}]' for at in index)}"
    raise UsageError(f"a {kind} block has {kind.block_bytes} bytes: none has the number {byte}")
