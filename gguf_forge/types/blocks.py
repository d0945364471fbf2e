"""Reads packed blocks: their fields, and the code of each value.

The comments of csrc/blocks.h say which bits belong to which element.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import UsageError
from gguf_forge.types.levels import Grid
from gguf_forge.types.tensor_type import TensorType


@cache
def block_dtype(tensor_type: TensorType) -> np.dtype[Any]:
    """One block as a structured dtype of `tensor_type.block_bytes` bytes.

    Types that aren't packed have the one field `value`.

    Example:
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> block_dtype(TensorType.named("Q4_K")).names
        ('d', 'dmin', 'scales', 'qs')
    """
    return np.dtype(list(tensor_type.fields))


def unpack_blocks(packed: NDArray[np.uint8], tensor_type: str | TensorType) -> NDArray[np.void]:
    """The fields of packed blocks, by name.

    Args:
        packed: uint8 array (..., b): the last axis is a whole number of the type's blocks.
        tensor_type: The tensor type that it holds, such as "Q4_K", in any case.

    Returns:
        Structured array (..., blocks): a view of `packed` where its last axis is contiguous. Bytes that hold several
        small numbers (`qs` and `scales` of most types) stay bytes.

    Raises:
        UsageError: the type is unknown, or the shape or dtype does not fit.

    Example:
        >>> from gguf_forge import quantize
        >>> blocks = unpack_blocks(quantize(np.ones((4, 64), np.float32), "Q8_0"), "Q8_0")
        >>> blocks.shape, float(blocks["d"][0, 0]), int(blocks["qs"][0, 0, 31])
        ((4, 2), 0.00787353515625, 127)
    """
    tensor_type = TensorType.named(tensor_type)
    if packed.dtype != np.uint8:
        raise UsageError(f"packed blocks must be uint8, not {packed.dtype.name}", hint="view them as uint8")
    if packed.ndim == 0 or packed.shape[-1] % tensor_type.block_bytes:
        blocks = f"{tensor_type} blocks of {tensor_type.block_bytes} bytes"
        raise UsageError(f"rows of shape {packed.shape} are not a whole number of {blocks}")
    if packed.strides[-1] != 1:
        packed = np.ascontiguousarray(packed)
    return packed.view(block_dtype(tensor_type))


def field_at(tensor_type: TensorType, byte: int) -> str:
    """The field that a byte of a block belongs to, with the index of its item.

    Args:
        tensor_type: The type of the block.
        byte: From 0 to `tensor_type.block_bytes - 1`.

    Raises:
        UsageError: the block has no such byte.

    Example:
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> field_at(TensorType.named("Q4_K"), 7), field_at(TensorType.named("Q4_K"), 3)
        ('scales[3]', 'dmin')
    """
    fields: Any = block_dtype(tensor_type).fields
    for name, (item, offset, *_) in fields.items():
        if offset <= byte < offset + item.itemsize:
            index = np.unravel_index((byte - offset) // item.base.itemsize, item.shape) if item.shape else ()
            return f"{name}{''.join(f'[{at}]' for at in index)}"
    raise UsageError(f"a {tensor_type} block has {tensor_type.block_bytes} bytes: none has the number {byte}")


def levels_of(packed: NDArray[np.uint8], tensor_type: TensorType) -> NDArray[np.int16] | None:
    """The level of each value of packed rows: the small whole number that the weight was rounded to, as it is stored.

    Args:
        packed: uint8 array (rows, bytes).
        tensor_type: What it holds.

    Returns:
        int16 array (rows, values); None for types without levels: floats, and the i-quants of 1 to 3 bits, whose
        values are points of a grid.

    Example:
        >>> from gguf_forge import quantize
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> levels_of(quantize(np.arange(32, dtype=np.float32)[None], "Q8_0"), TensorType.named("Q8_0"))[0, -3:]
        array([119, 123, 127], dtype=int16)
    """
    if tensor_type.levels is None or isinstance(tensor_type.levels.codes, Grid):
        return None
    blocks = unpack_blocks(np.ascontiguousarray(packed), tensor_type)
    return tensor_type.levels.codes.read(blocks.reshape(-1)).astype(np.int16).reshape(len(packed), -1)
