"""Packed rows that no reader should be given: blocks whose scale is infinite or not a number.

Source: `ggml_validate_row_data` of ggml, which llama-quantize runs over all that it has quantized.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gguf_forge.types.rows import Rows
from gguf_forge.types.tensor_type import SCALES_AT, TensorType

# The bits of a 16-bit float that are all ones for infinities and NaN.
_EXPONENTS = {"F16": 0x7C00, "BF16": 0x7F80}


def first_invalid_block(packed: Rows, kind: TensorType) -> int | None:
    """The number of the first block with a scale that is infinite or NaN; None if there is none.

    Args:
        packed: uint8 rows of whole blocks.
        kind: Their type; of F16 and BF16 each value is looked at. Types without f16 scales have nothing to check.

    Example:
        >>> first_invalid_block(np.array([[0, 0x7C] + [0] * 32], np.uint8), TENSOR_TYPES["Q8_0"])
        0
    """
    if kind.name in _EXPONENTS:
        values = packed.reshape(-1).view(np.uint16)
        found = np.flatnonzero(values & _EXPONENTS[kind.name] == _EXPONENTS[kind.name])[:1]
        return int(found[0]) if len(found) else None
    blocks = packed.reshape(-1, kind.block_bytes)
    # the high byte of an f16 holds its whole exponent, which is all ones for infinities and NaN
    invalid = [np.flatnonzero(blocks[:, at + 1] & 0x7C == 0x7C)[:1] for at in SCALES_AT.get(kind.name, ())]
    return min((int(found[0]) for found in invalid if len(found)), default=None)


# The bytes of the one scale of a block, and what they are.
_FLOAT_SCALES = {"F32": "<u4", "Q8_K": "<u4", "F64": "<u8"}
_FLOAT_EXPONENTS = {"<u4": 0x7F800000, "<u8": 0x7FF0000000000000}


def invalid_blocks(packed: Rows, kind: TensorType) -> NDArray[np.bool_] | None:
    """Of each block, whether a scale (of types that are not packed: the value) is infinite or NaN.

    Args:
        packed: uint8 rows of whole blocks.
        kind: Their type.

    Returns:
        One answer for each block, row by row; None for types that can't be invalid.

    Example:
        >>> invalid_blocks(np.array([[0, 0x7C] + [0] * 32], np.uint8), TENSOR_TYPES["Q8_0"])
        array([ True])
    """
    blocks = packed.reshape(-1, kind.block_bytes)
    if kind.name in _EXPONENTS:
        exponent = _EXPONENTS[kind.name]
        found = packed.reshape(-1).view(np.uint16) & exponent == exponent
    elif kind.name in _FLOAT_SCALES:
        bits = _FLOAT_SCALES[kind.name]
        exponent = _FLOAT_EXPONENTS[bits]
        scales = np.ascontiguousarray(blocks[:, : np.dtype(bits).itemsize]).view(bits).reshape(-1)
        found = scales & exponent == exponent
    elif kind.name == "MXFP4":
        found = blocks[:, 0] == 0xFF
    elif kind.name == "IQ1_M":
        # the high nibbles of four 16-bit scales are an f16; its exponent is in those of the last two
        found = (blocks[:, 55] & 0x70 == 0x70) & (blocks[:, 53] & 0xC0 == 0xC0)
    elif kind.name in SCALES_AT:
        found = np.zeros(len(blocks), bool)
        for at in SCALES_AT[kind.name]:
            found |= blocks[:, at + 1] & 0x7C == 0x7C
    else:
        return None
    return np.asarray(found, bool)
