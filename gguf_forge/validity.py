"""Packed rows that no reader should be given: blocks whose scale is infinite or not a number.

Source: `ggml_validate_row_data` of ggml, which llama-quantize runs over all that it has quantized.
"""

from __future__ import annotations

import numpy as np

from gguf_forge.expr import Rows
from gguf_forge.tensor_types import TensorType

# Where the f16 scales (d, and dmin or m) of a block stand, in bytes.
_SCALES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "Q1_0", "Q2_0", "IQ4_NL", "IQ4_XS", "IQ1_S"), (0,)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}


def first_invalid_block(packed: Rows, kind: TensorType) -> int | None:
    """The number of the first block with a scale that is infinite or NaN; None if there is none.

    Args:
        packed: uint8 rows of whole blocks.
        kind: Their type. Types without f16 scales have nothing to check here.

    Example:
        >>> first_invalid_block(np.array([[0, 0x7C] + [0] * 32], np.uint8), TENSOR_TYPES["Q8_0"])
        0
    """
    blocks = packed.reshape(-1, kind.block_bytes)
    # the high byte of an f16 holds its whole exponent, which is all ones for infinities and NaN
    invalid = [np.flatnonzero(blocks[:, at + 1] & 0x7C == 0x7C)[:1] for at in _SCALES.get(kind.name, ())]
    return min((int(found[0]) for found in invalid if len(found)), default=None)
