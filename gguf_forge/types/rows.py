"""The types of a tensor's rows in memory, and of row numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Two axes: values of a float or integer type, or the bytes of packed blocks.
Rows = NDArray[Any]
# Rows of numbers, and rows of packed blocks.
FloatRows = NDArray[np.float32]
PackedRows = NDArray[np.uint8]
# Row numbers of a tensor. They count on from one matrix to the next.
RowNumbers = NDArray[np.int64]
