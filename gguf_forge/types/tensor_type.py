"""The ggml tensor types: name, id in GGUF, and block layout. Source: ggml.h and ggml-common.h."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from gguf_forge.errors import UsageError

_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(bfloat16),
}


@dataclass(frozen=True)
class TensorType:
    """One ggml type: `block_elements` values are packed into `block_bytes` bytes."""

    name: str
    id: int
    block_elements: int
    block_bytes: int

    @property
    def is_float(self) -> bool:
        """Is it a type that weights are stored in unpacked: F32, F16 or BF16?"""
        return self.name in ("F32", "F16", "BF16")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of one value of a float type; bytes for all others."""
        return _DTYPES.get(self.name, np.dtype(np.uint8))

    def row_bytes(self, n_per_row: int) -> int:
        """Bytes of one packed row of `n_per_row` values (a multiple of the block)."""
        return n_per_row // self.block_elements * self.block_bytes

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this type; the row is a multiple of the block."""
        return self.row_bytes(prod(shape))

    def __str__(self) -> str:
        return self.name


TENSOR_TYPES = {
    row[0]: TensorType(*row)
    for row in (
        ("F32", 0, 1, 4),
        ("F16", 1, 1, 2),
        ("Q4_0", 2, 32, 18),
        ("Q4_1", 3, 32, 20),
        ("Q5_0", 6, 32, 22),
        ("Q5_1", 7, 32, 24),
        ("Q8_0", 8, 32, 34),
        ("Q8_1", 9, 32, 36),
        ("Q2_K", 10, 256, 84),
        ("Q3_K", 11, 256, 110),
        ("Q4_K", 12, 256, 144),
        ("Q5_K", 13, 256, 176),
        ("Q6_K", 14, 256, 210),
        ("Q8_K", 15, 256, 292),
        ("IQ2_XXS", 16, 256, 66),
        ("IQ2_XS", 17, 256, 74),
        ("IQ3_XXS", 18, 256, 98),
        ("IQ1_S", 19, 256, 50),
        ("IQ4_NL", 20, 32, 18),
        ("IQ3_S", 21, 256, 110),
        ("IQ2_S", 22, 256, 82),
        ("IQ4_XS", 23, 256, 136),
        ("I8", 24, 1, 1),
        ("I16", 25, 1, 2),
        ("I32", 26, 1, 4),
        ("I64", 27, 1, 8),
        ("F64", 28, 1, 8),
        ("IQ1_M", 29, 256, 56),
        ("BF16", 30, 1, 2),
        ("TQ1_0", 34, 256, 54),
        ("TQ2_0", 35, 256, 66),
        ("MXFP4", 39, 32, 17),
        ("NVFP4", 40, 64, 36),
        ("Q1_0", 41, 128, 18),
        ("Q2_0", 42, 64, 18),
    )
}
F32, F16, BF16 = TENSOR_TYPES["F32"], TENSOR_TYPES["F16"], TENSOR_TYPES["BF16"]
MXFP4 = TENSOR_TYPES["MXFP4"]

# Where the f16 scales (d, and dmin or m) of a block stand, in bytes.
SCALES_AT: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "Q1_0", "Q2_0", "IQ4_NL", "IQ4_XS", "IQ1_S"), (0,)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}


def tensor_type(name: str | TensorType) -> TensorType:
    """The type called `name`, in any case.

    Raises:
        UsageError: no such type.

    Example:
        >>> tensor_type("q4_k").block_bytes
        144
    """
    if isinstance(name, TensorType):
        return name
    found = TENSOR_TYPES.get(name.upper())
    if found is None:
        raise UsageError(f"unknown tensor type {name!r}", hint=f"known types: {', '.join(TENSOR_TYPES)}")
    return found
