"""The ggml tensor types: one row holds every fact of a type, and all other modules take the facts from it.

To add a type, write its row here, and its block and kernel in csrc (csrc/README.md).
Source: ggml.h, ggml-common.h and ggml-quants.c; facts from elsewhere have their source at the attribute.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from gguf_forge.errors import UsageError
from gguf_forge.types.levels import Bits, Grid, LevelScheme, Trits

# A field of a block in the form of NumPy's structured dtypes: name, dtype of an item, and number of items.
Field = tuple[str, Any] | tuple[str, Any, int] | tuple[str, Any, tuple[int, ...]]

# The only field of a type that is not packed.
VALUE = "value"


class ImportanceUse(IntEnum):
    """How the quantizer of a type uses importance, from least to most."""

    IGNORED = 0  # the bytes do not depend on it
    USED = 1
    WANTED = 2  # llama-quantize refuses to go without it; source: tensor_requires_imatrix of llama-quant.cpp
    NEEDED = 3  # the kernel cannot go without it; source: ggml_quantize_requires_imatrix


@dataclass(frozen=True, eq=False, repr=False)
class TensorType:
    """One ggml type: `block_elements` values are packed into `block_bytes` bytes. Each type is one object.

    Attributes:
        name, id: As GGUF files have them.
        block_elements, block_bytes: Values and bytes of a block; of types that are not packed, one value's.
        fields: The fields of a block, with ggml's names, in ggml's order. Where ggml keeps two things in one array they
            are apart here: `signs_scales` of IQ3_XXS.
        exponents: Fields with bits that are all ones where a scale (of types that are not packed: the value) is
            infinite or not a number. Source: `ggml_validate_row_data`.
        levels: What the codes of its values stand for; None where each value is a number of its own, and for types
            that are only computed with.
        is_float: Whether weights are stored in this type unpacked.
        is_target: Whether tensors can be quantized to it. Source: `ggml_type` names that llama-quantize takes.
        is_swappable: Whether the scales are the only numbers of a block that have a byte order. Big-endian files of
            such types can be read and written. Source: gguf_convert_endian.py of gguf-py; ggml-common.h for TQ1_0.
        is_fusible: Whether a compiler may fuse multiplications and additions of the quantizer with another result in
            the bytes. Source: measured, see docs/exactness.md.
        rounds_late: Whether the quantizer rounds the scale after it has chosen levels. A few levels are then no longer
            the nearest ones.
        importance: How the quantizer uses importance.
        fallback: The type that llama-quantize takes where a row is not a whole number of blocks, by name.
            Source: llama-quant.cpp.
        file_type: What `general.file_type` says of a file whose tensors are mostly of this type; None where it does
            not tell. Source: llama-model-loader.cpp.
    """

    name: str
    id: int
    block_elements: int
    block_bytes: int
    _: KW_ONLY
    fields: tuple[Field, ...]
    exponents: tuple[tuple[str, int], ...]
    levels: LevelScheme | None
    is_float: bool
    is_target: bool
    is_swappable: bool
    is_fusible: bool
    rounds_late: bool
    importance: ImportanceUse
    fallback: str | None
    file_type: int | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of one value of a float type; bytes for all others."""
        return np.dtype(self.fields[0][1] if self.is_float else np.uint8)

    @property
    def is_packed(self) -> bool:
        """Whether a block holds several values."""
        return self.block_elements > 1

    @property
    def scales_at(self) -> tuple[int, ...]:
        """The byte offsets of the f16 scales (d, and dmin or m) in a packed block."""
        block: Any = np.dtype(list(self.fields))
        found = (block.fields[name] for name in block.names if self.is_packed)
        return tuple(offset for item, offset, *_ in found if item == np.float16)

    def row_bytes(self, n_per_row: int) -> int:
        """Bytes of one packed row of `n_per_row` values (a multiple of the block)."""
        return n_per_row // self.block_elements * self.block_bytes

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this type; the row is a multiple of the block."""
        return self.row_bytes(prod(shape))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"TensorType({self.name})"

    @classmethod
    def named(cls, name: str | TensorType) -> TensorType:
        """The type called `name`, in any case.

        Raises:
            UsageError: no such type.

        Example:
            >>> TensorType.named("q4_k").block_bytes
            144
        """
        if isinstance(name, TensorType):
            return name
        found = TENSOR_TYPES.get(name.upper())
        if found is None:
            raise UsageError(f"unknown tensor type {name!r}", hint=f"known types: {', '.join(TENSOR_TYPES)}")
        return found


_D: Field = ("d", "<f2")
_M: Field = ("m", "<f2")
_DMIN: Field = ("dmin", "<f2")

# The exponent bits of a floating-point number as an unsigned integer. They are all ones for infinities and NaN.
_EXPONENT = {"f2": 0x7C00, "bf2": 0x7F80, "f4": 0x7F80_0000, "f8": 0x7FF0 << 48}
_FINITE_D = (("d", _EXPONENT["f2"]),)
_FINITE_D_M = (*_FINITE_D, ("m", _EXPONENT["f2"]))
_FINITE_D_DMIN = (*_FINITE_D, ("dmin", _EXPONENT["f2"]))
_FINITE_E8M0 = (("e", 0xFF),)
# The high nibbles of IQ1_M's four 16-bit scales are an f16, whose exponent is in those of the last two.
_FINITE_IQ1_M = (("scales", 0x7000_C000 << 32),)

_NIBBLES, _LONG_NIBBLES, _PAIRS = Bits("qs", 16, 4), Bits("qs", 32, 4), Bits("qs", 32, 2)
_FIFTH_BITS = Bits("qs", 16, 4, high=Bits("qh", 1, 1))
_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6)
_TERNARY = (-1, 0, 1)
_IQ2, _IQ3_XXS, _IQ3_S = (8, 25, 43), (4, 12, 20, 28, 36, 44, 52, 62), (1, 3, 5, 7, 9, 11, 13, 15)


def _span(first: int, last: int) -> tuple[float, ...]:
    return tuple(range(first, last + 1))


def _mirrored(magnitudes: tuple[int, ...]) -> tuple[float, ...]:
    return (*(-magnitude for magnitude in reversed(magnitudes)), *magnitudes)


IGNORED, USED, WANTED, NEEDED = ImportanceUse

# fmt: off
TENSOR_TYPES = {row.name: row for row in (
    TensorType("F32", 0, 1, 4, fields=((VALUE, "<f4"),), exponents=((VALUE, _EXPONENT["f4"]),), levels=None,
        is_float=True, is_target=True, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=0),
    TensorType("F16", 1, 1, 2, fields=((VALUE, "<f2"),), exponents=((VALUE, _EXPONENT["f2"]),), levels=None,
        is_float=True, is_target=True, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=1),
    TensorType("Q4_0", 2, 32, 18, fields=(_D, ("qs", "u1", 16)), exponents=_FINITE_D,
        levels=LevelScheme(32, _span(-8, 7), _NIBBLES),
        is_float=False, is_target=True, is_swappable=True, is_fusible=True, rounds_late=True,
        importance=USED, fallback=None, file_type=2),
    TensorType("Q4_1", 3, 32, 20, fields=(_D, _M, ("qs", "u1", 16)), exponents=_FINITE_D_M,
        levels=LevelScheme(32, _span(0, 15), _NIBBLES, has_offset=True),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=True,
        importance=USED, fallback=None, file_type=3),
    TensorType("Q5_0", 6, 32, 22, fields=(_D, ("qh", "u1", 4), ("qs", "u1", 16)), exponents=_FINITE_D,
        levels=LevelScheme(32, _span(-16, 15), _FIFTH_BITS),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=True,
        importance=USED, fallback=None, file_type=8),
    TensorType("Q5_1", 7, 32, 24, fields=(_D, _M, ("qh", "u1", 4), ("qs", "u1", 16)), exponents=_FINITE_D_M,
        levels=LevelScheme(32, _span(0, 31), _FIFTH_BITS, has_offset=True),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=True,
        importance=USED, fallback=None, file_type=9),
    TensorType("Q8_0", 8, 32, 34, fields=(_D, ("qs", "i1", 32)), exponents=_FINITE_D,
        levels=LevelScheme(32, _span(-127, 127), Bits("qs", 32, 8), lowest=-127, fill=0x7F),
        is_float=False, is_target=True, is_swappable=True, is_fusible=False, rounds_late=True,
        importance=IGNORED, fallback=None, file_type=7),
    TensorType("Q8_1", 9, 32, 36, fields=(_D, ("s", "<f2"), ("qs", "i1", 32)), exponents=(), levels=None,
        is_float=False, is_target=False, is_swappable=False, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=None),
    TensorType("Q2_K", 10, 256, 84, fields=(("scales", "u1", 16), ("qs", "u1", 64), _D, _DMIN),
        exponents=_FINITE_D_DMIN, levels=LevelScheme(16, _span(0, 3), _PAIRS, has_offset=True),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=USED, fallback="Q4_0", file_type=10),
    TensorType("Q3_K", 11, 256, 110, fields=(("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), _D),
        exponents=_FINITE_D, levels=LevelScheme(16, _span(-4, 3), Bits("qs", 32, 2, high=Bits("hmask", 32, 1))),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=USED, fallback="Q4_0", file_type=12),
    TensorType("Q4_K", 12, 256, 144, fields=(_D, _DMIN, ("scales", "u1", 12), ("qs", "u1", 128)),
        exponents=_FINITE_D_DMIN, levels=LevelScheme(32, _span(0, 15), _LONG_NIBBLES, has_offset=True),
        is_float=False, is_target=True, is_swappable=True, is_fusible=True, rounds_late=False,
        importance=USED, fallback="Q5_0", file_type=15),
    TensorType("Q5_K", 13, 256, 176, fields=(_D, _DMIN, ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)),
        exponents=_FINITE_D_DMIN,
        levels=LevelScheme(32, _span(0, 31), Bits("qs", 32, 4, high=Bits("qh", 32, 1)), has_offset=True),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=USED, fallback="Q5_1", file_type=17),
    TensorType("Q6_K", 14, 256, 210, fields=(("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), _D),
        exponents=_FINITE_D, levels=LevelScheme(16, _span(-32, 31), Bits("ql", 64, 4, high=Bits("qh", 32, 2))),
        is_float=False, is_target=True, is_swappable=True, is_fusible=True, rounds_late=False,
        importance=USED, fallback="Q8_0", file_type=18),
    TensorType("Q8_K", 15, 256, 292, fields=(("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)),
        exponents=(("d", _EXPONENT["f4"]),), levels=None,
        is_float=False, is_target=False, is_swappable=False, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=None),
    TensorType("IQ2_XXS", 16, 256, 66, fields=(_D, ("qs", "<u4", (8, 2))), exponents=_FINITE_D,
        levels=LevelScheme(32, _mirrored(_IQ2), Grid(8, {"qs": (0xFFFFFFFF, 0x0FFFFFFF)}, first=8)),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=NEEDED, fallback="IQ4_NL", file_type=19),
    TensorType("IQ2_XS", 17, 256, 74, fields=(_D, ("qs", "<u2", 32), ("scales", "u1", 8)), exponents=_FINITE_D,
        levels=LevelScheme(16, _mirrored(_IQ2), Grid(8, {"qs": None}, first=8)),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=NEEDED, fallback="IQ4_NL", file_type=20),
    TensorType("IQ3_XXS", 18, 256, 98, fields=(_D, ("qs", "u1", 64), ("signs_scales", "<u4", 8)), exponents=_FINITE_D,
        levels=LevelScheme(32, _mirrored(_IQ3_XXS), Grid(4, {"qs": None, "signs_scales": (0x0FFFFFFF,)}, first=4)),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=WANTED, fallback="IQ4_NL", file_type=23),
    TensorType("IQ1_S", 19, 256, 50, fields=(_D, ("qs", "u1", 32), ("qh", "<u2", 8)), exponents=_FINITE_D,
        levels=LevelScheme(32, _TERNARY, Grid(8, {"qs": None, "qh": (0x0FFF,)}, first=-1, last=1), has_offset=True),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=NEEDED, fallback="IQ4_NL", file_type=24),
    TensorType("IQ4_NL", 20, 32, 18, fields=(_D, ("qs", "u1", 16)), exponents=_FINITE_D,
        levels=LevelScheme(32, _IQ4, _NIBBLES),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=True,
        importance=USED, fallback=None, file_type=25),
    TensorType("IQ3_S", 21, 256, 110,
        fields=(_D, ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)), exponents=_FINITE_D,
        levels=LevelScheme(32, _mirrored(_IQ3_S), Grid(4, {"qs": None, "qh": None, "signs": None}, first=1)),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=USED, fallback="IQ4_NL", file_type=26),
    TensorType("IQ2_S", 22, 256, 82,
        fields=(_D, ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)), exponents=_FINITE_D,
        levels=LevelScheme(16, _mirrored(_IQ2), Grid(8, {"qs": None, "qh": None, "signs": None}, first=8)),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=WANTED, fallback="IQ4_NL", file_type=28),
    TensorType("IQ4_XS", 23, 256, 136, fields=(_D, ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)),
        exponents=_FINITE_D, levels=LevelScheme(32, _IQ4, _NIBBLES),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=USED, fallback="IQ4_NL", file_type=30),
    TensorType("I8", 24, 1, 1, fields=((VALUE, "i1"),), exponents=(), levels=None,
        is_float=False, is_target=False, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=None),
    TensorType("I16", 25, 1, 2, fields=((VALUE, "<i2"),), exponents=(), levels=None,
        is_float=False, is_target=False, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=None),
    TensorType("I32", 26, 1, 4, fields=((VALUE, "<i4"),), exponents=(), levels=None,
        is_float=False, is_target=False, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=None),
    TensorType("I64", 27, 1, 8, fields=((VALUE, "<i8"),), exponents=(), levels=None,
        is_float=False, is_target=False, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=None),
    TensorType("F64", 28, 1, 8, fields=((VALUE, "<f8"),), exponents=((VALUE, _EXPONENT["f8"]),), levels=None,
        is_float=False, is_target=False, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=None),
    TensorType("IQ1_M", 29, 256, 56, fields=(("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)),
        exponents=_FINITE_IQ1_M,
        levels=LevelScheme(8, _TERNARY, Grid(8, {"qs": None, "qh": (0x77,)}, first=-1, last=1), has_offset=True),
        is_float=False, is_target=True, is_swappable=False, is_fusible=True, rounds_late=False,
        importance=WANTED, fallback="IQ4_NL", file_type=31),
    TensorType("BF16", 30, 1, 2, fields=((VALUE, bfloat16),), exponents=((VALUE, _EXPONENT["bf2"]),), levels=None,
        is_float=True, is_target=True, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=32),
    TensorType("TQ1_0", 34, 256, 54, fields=(("qs", "u1", 48), ("qh", "u1", 4), _D), exponents=_FINITE_D,
        levels=LevelScheme(256, _TERNARY, Trits((("qs", 0, 32, 5), ("qs", 32, 48, 5), ("qh", 0, 4, 4)))),
        is_float=False, is_target=True, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback="Q4_0", file_type=36),
    TensorType("TQ2_0", 35, 256, 66, fields=(("qs", "u1", 64), _D), exponents=_FINITE_D,
        levels=LevelScheme(256, _TERNARY, _PAIRS, fill=0xAA),
        is_float=False, is_target=True, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback="Q4_0", file_type=37),
    TensorType("MXFP4", 39, 32, 17, fields=(("e", "u1"), ("qs", "u1", 16)), exponents=_FINITE_E8M0,
        levels=LevelScheme(32, _E2M1, _NIBBLES, fill=0x77),
        is_float=False, is_target=True, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=None),
    TensorType("NVFP4", 40, 64, 36, fields=(("d", "u1", 4), ("qs", "u1", 32)), exponents=(),
        levels=LevelScheme(16, _E2M1, Bits("qs", 8, 4), fill=0x77),
        is_float=False, is_target=True, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=39),
    TensorType("Q1_0", 41, 128, 18, fields=(_D, ("qs", "u1", 16)), exponents=_FINITE_D,
        levels=LevelScheme(128, (-1, 1), Bits("qs", 1, 1)),
        is_float=False, is_target=True, is_swappable=True, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback=None, file_type=40),
    TensorType("Q2_0", 42, 64, 18, fields=(_D, ("qs", "u1", 16)), exponents=_FINITE_D,
        levels=LevelScheme(64, _span(-1, 2), Bits("qs", 1, 2)),
        is_float=False, is_target=True, is_swappable=False, is_fusible=False, rounds_late=False,
        importance=IGNORED, fallback="Q4_0", file_type=41),
)}
# fmt: on
F32, F16, BF16 = TENSOR_TYPES["F32"], TENSOR_TYPES["F16"], TENSOR_TYPES["BF16"]
Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 = (TENSOR_TYPES[name] for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"))
MXFP4, NVFP4 = TENSOR_TYPES["MXFP4"], TENSOR_TYPES["NVFP4"]
I8, I32, I64 = TENSOR_TYPES["I8"], TENSOR_TYPES["I32"], TENSOR_TYPES["I64"]
# Types whose values are numbers of something, such as tokens or experts, and no weights.
INTEGERS = (I8, TENSOR_TYPES["I16"], I32, I64)
