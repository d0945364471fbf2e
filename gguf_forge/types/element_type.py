"""The element types of checkpoint files: what safetensors stores, apart from ggml's tensor types.

An element type says how many bits a stored number has and how NumPy reads it; it says nothing of GGUF. Weights become
F32, F16 or BF16 tensors (`TensorType`) before any architecture sees them.
Source: the enum `Dtype` of the safetensors library, and ml_dtypes for the numbers that NumPy lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import ml_dtypes
import numpy as np


@dataclass(frozen=True)
class ElementType:
    """One stored type of a checkpoint.

    Attributes:
        name: As the header of a safetensors file writes it.
        bits: Bits of an element.
        dtype: The NumPy type of the stored bytes; `astype` converts it to other numbers. Elements of less than a byte
            are packed, and their bytes are uint8.
    """

    name: str
    bits: int
    dtype: np.dtype[Any]

    @property
    def is_packed(self) -> bool:
        """Whether a byte holds parts of several elements."""
        return self.bits < 8

    @property
    def is_float(self) -> bool:
        """Whether rows of this type are weights as they are: always False, as weights are F32, F16 or BF16 tensors."""
        return False

    def row_bytes(self, n_per_row: int) -> int:
        """Bytes of one row of `n_per_row` elements (a whole number of bytes)."""
        return n_per_row * self.bits // 8

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this shape (a whole number of bytes)."""
        return self.row_bytes(prod(shape))

    def __str__(self) -> str:
        return self.name


ELEMENT_TYPES = {
    name: ElementType(name, bits, np.dtype(dtype))
    for name, bits, dtype in (
        ("BOOL", 8, "?"),
        ("F4", 4, "u1"),
        ("F6_E2M3", 6, "u1"),
        ("F6_E3M2", 6, "u1"),
        ("U8", 8, "u1"),
        ("I8", 8, "i1"),
        ("F8_E5M2", 8, ml_dtypes.float8_e5m2),
        ("F8_E4M3", 8, ml_dtypes.float8_e4m3fn),
        ("F8_E8M0", 8, ml_dtypes.float8_e8m0fnu),
        ("F8_E4M3FNUZ", 8, ml_dtypes.float8_e4m3fnuz),
        ("F8_E5M2FNUZ", 8, ml_dtypes.float8_e5m2fnuz),
        ("I16", 16, "<i2"),
        ("U16", 16, "<u2"),
        ("F16", 16, "<f2"),
        ("BF16", 16, ml_dtypes.bfloat16),
        ("I32", 32, "<i4"),
        ("U32", 32, "<u4"),
        ("F32", 32, "<f4"),
        ("C64", 64, "<c8"),
        ("F64", 64, "<f8"),
        ("I64", 64, "<i8"),
        ("U64", 64, "<u8"),
    )
}
