"""Checks whether each weight was rounded to the level nearest to it.

A quantizer may choose the scales of a block in many ways (with an importance matrix, with fused arithmetic, by another
search), but in the end it rounds each weight to the nearest level that these scales make. So if levels are not the
nearest ones, the block is damaged or was made of other weights. It is not the same weights packed in another way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gguf_forge.kernels.rows import dequantize
from gguf_forge.types.blocks import levels_of
from gguf_forge.types.tensor_type import TensorType

# A level counts as the nearest if it is this close to being so, as a share of the distance between two levels. The
# older formats round the scale to 16 bits after they have chosen levels, so their levels can be slightly off.
_SLACK = 0.04


def misplaced_values(
    packed: NDArray[np.uint8], tensor_type: TensorType, values: NDArray[np.float32]
) -> NDArray[np.int64] | None:
    """How many values of each block are at a level that is not the nearest one.

    Args:
        packed: uint8 array (rows, bytes).
        tensor_type: Its type.
        values: float32 array (rows, n): what was packed.

    Returns:
        One number for each block, row by row; None for types without levels.

    Example:
        >>> from gguf_forge import quantize
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> row = np.linspace(-1, 1, 32, dtype=np.float32)[None]
        >>> packed = quantize(row, "Q4_0")
        >>> packed[0, 5] ^= 2
        >>> misplaced_values(packed, TensorType.named("Q4_0"), row)
        array([1])
    """
    scheme = tensor_type.levels
    levels = levels_of(packed, tensor_type)
    if scheme is None or levels is None:
        return None
    positions = scheme.positions
    at = positions[np.clip(levels - scheme.lowest, 0, len(positions) - 1)].reshape(-1, scheme.values_per_scale)
    with np.errstate(all="ignore"):
        unpacked = dequantize(packed, tensor_type).reshape(at.shape).astype(np.float64)
        # scale and offset of a group, out of its two outermost levels
        groups, high, low = np.arange(len(at)), at.argmax(1), at.argmin(1)
        span = at[groups, high] - at[groups, low]
        scale = (unpacked[groups, high] - unpacked[groups, low]) / span
        offset = unpacked[groups, high] - scale * at[groups, high]
        ideal = (values.reshape(at.shape) - offset[:, None]) / scale[:, None]
        order = np.unique(positions)
        nearest = order[np.searchsorted((order[1:] + order[:-1]) / 2, ideal)]
        excess = np.abs(ideal - at) - np.abs(ideal - nearest)
        # a group at one level, or with a scale of zero, says nothing
        misplaced = (excess > _SLACK * np.abs(nearest - at)) & np.isfinite(ideal)
    counts: NDArray[np.int64] = misplaced.reshape(-1, tensor_type.block_elements).sum(axis=1)
    return counts
