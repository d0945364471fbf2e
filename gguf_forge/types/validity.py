"""Finds invalid rows: values, and scales of packed blocks, that are infinite or not a number.

Source: `ggml_validate_row_data` of ggml, which llama-quantize runs over all that it reads and all that it quantized.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.types.blocks import block_dtype
from gguf_forge.types.tensor_type import TensorType

# Blocks that `first_invalid_block` looks at together, so that it needs little memory.
_PIECE = 1 << 16


def first_invalid_block(packed: NDArray[np.uint8], tensor_type: TensorType) -> int | None:
    """The number of the first block with a scale that is infinite or NaN; None if there is none.

    Args:
        packed: uint8 rows of whole blocks.
        tensor_type: Their type. In types that are not packed, every value is a block.

    Example:
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> first_invalid_block(np.array([[0, 0x7C] + [0] * 32], np.uint8), TensorType.named("Q8_0"))
        0
    """
    blocks = np.ascontiguousarray(packed).reshape(-1, tensor_type.block_bytes)
    for start in range(0, len(blocks), _PIECE):
        firsts = [np.flatnonzero(invalid)[:1] for invalid in _invalid(blocks[start : start + _PIECE], tensor_type)]
        if found := [start + int(first[0]) for first in firsts if len(first)]:
            return min(found)
    return None


def invalid_blocks(packed: NDArray[np.uint8], tensor_type: TensorType) -> NDArray[np.bool_] | None:
    """Of each block, whether a scale (of types that are not packed: the value) is infinite or NaN.

    Args:
        packed: uint8 rows of whole blocks.
        tensor_type: Their type.

    Returns:
        One answer for each block, row by row; None for types that can't be invalid.

    Example:
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> invalid_blocks(np.array([[0, 0x7C] + [0] * 32], np.uint8), TensorType.named("Q8_0"))
        array([ True])
    """
    if not tensor_type.exponents:
        return None
    return np.asarray(np.logical_or.reduce(tuple(_invalid(packed, tensor_type))), bool)


def _invalid(packed: NDArray[np.uint8], tensor_type: TensorType) -> Iterator[NDArray[np.bool_]]:
    """Of each block, whether a field that has an exponent is infinite or NaN; one array for each such field."""
    blocks = np.ascontiguousarray(packed).reshape(-1)
    fields: Any = block_dtype(tensor_type).fields
    for name, exponent in tensor_type.exponents:
        item, offset, *_ = fields[name]
        size = tensor_type.block_bytes
        bits = {"names": [name], "formats": [f"<u{item.itemsize}"], "offsets": [offset], "itemsize": size}
        number = blocks.view(np.dtype(bits))[name]  # type: ignore[call-overload]
        yield number & exponent == exponent
