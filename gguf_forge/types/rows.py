"""What rows of a tensor are in memory, and how they are numbered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Two axes: values of a float or integer type, or the bytes of packed blocks.
Rows = NDArray[Any]
# Rows of numbers, and rows of packed blocks.
FloatRows = NDArray[np.float32]
PackedRows = NDArray[np.uint8]
# Numbers of a tensor's rows, all its matrices counted on.
RowNumbers = NDArray[np.int64]
