"""The other byte order of values and blocks.

Source: gguf_convert_endian.py of gguf-py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gguf_forge.types.element_type import ElementType
from gguf_forge.types.rows import Rows
from gguf_forge.types.tensor_type import TensorType


def swapped(rows: Rows, kind: TensorType | ElementType) -> Rows:
    """Rows of a type in the other byte order. Of a packed block only the scales have one.

    Args:
        rows: Values, or bytes of blocks.
        kind: Their type; if its blocks are packed, `is_swappable`.

    Returns:
        A new array of the same type and shape.
    """
    stored = np.ascontiguousarray(rows)
    if isinstance(kind, TensorType) and kind.is_packed:
        blocks = stored.view(np.uint8).reshape(-1, kind.block_bytes)
        turned: NDArray[np.uint8] = blocks.copy()
        for at in kind.scales_at:
            turned[:, [at, at + 1]] = blocks[:, [at + 1, at]]
    else:
        values = stored.view(np.uint8).reshape(-1, kind.row_bytes(1))
        turned = np.ascontiguousarray(values[:, ::-1])
    return turned.reshape(-1).view(stored.dtype).reshape(stored.shape)
