"""The file types: what a user calls a quantization.

Source: llama.cpp's include/llama.h, src/llama-quant.cpp and tools/quantize/quantize.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

from gguf_forge.errors import UsageError
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType


@dataclass(frozen=True)
class FileType:
    """One file type.

    `id` is the value of `general.file_type`, and `default_type` the type of a tensor that no rule of the mix
    names. Both are None where the source decides: COPY keeps its types, `auto` becomes its float type.
    """

    name: str
    id: int | None
    default_type: TensorType | None

    @property
    def is_float(self) -> bool:
        """Is it a type of the converter (F32, F16, BF16, auto), whose file is not requantized?"""
        return self.name in ("F32", "F16", "BF16", "auto")

    def __str__(self) -> str:
        return self.name


AUTO = FileType("auto", None, None)
COPY = FileType("COPY", None, None)
# Name, value of general.file_type, default type.
_ROWS = (
    ("F32", 0, "F32"),
    ("F16", 1, "F16"),
    ("BF16", 32, "BF16"),
    ("Q8_0", 7, "Q8_0"),
    ("Q4_0", 2, "Q4_0"),
    ("Q4_1", 3, "Q4_1"),
    ("Q5_0", 8, "Q5_0"),
    ("Q5_1", 9, "Q5_1"),
    ("Q2_K", 10, "Q2_K"),
    ("Q2_K_S", 21, "Q2_K"),
    ("Q3_K_S", 11, "Q3_K"),
    ("Q3_K_M", 12, "Q3_K"),
    ("Q3_K_L", 13, "Q3_K"),
    ("Q4_K_S", 14, "Q4_K"),
    ("Q4_K_M", 15, "Q4_K"),
    ("Q5_K_S", 16, "Q5_K"),
    ("Q5_K_M", 17, "Q5_K"),
    ("Q6_K", 18, "Q6_K"),
    ("IQ1_S", 24, "IQ1_S"),
    ("IQ1_M", 31, "IQ1_M"),
    ("IQ2_XXS", 19, "IQ2_XXS"),
    ("IQ2_XS", 20, "IQ2_XS"),
    ("IQ2_S", 28, "IQ2_XS"),
    ("IQ2_M", 29, "IQ2_S"),
    ("IQ3_XXS", 23, "IQ3_XXS"),
    ("IQ3_XS", 22, "IQ3_S"),
    ("IQ3_S", 26, "IQ3_S"),
    ("IQ3_M", 27, "IQ3_S"),
    ("IQ4_XS", 30, "IQ4_XS"),
    ("IQ4_NL", 25, "IQ4_NL"),
    ("TQ1_0", 36, "TQ1_0"),
    ("TQ2_0", 37, "TQ2_0"),
    ("MXFP4_MOE", 38, "MXFP4"),
    ("Q1_0", 40, "Q1_0"),
    ("Q2_0", 41, "Q2_0"),
)
FILE_TYPES = {
    **{name: FileType(name, number, TENSOR_TYPES[default]) for name, number, default in _ROWS},
    COPY.name: COPY,
    AUTO.name: AUTO,
}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

_BY_NAME = {name.upper(): found for name, found in FILE_TYPES.items()}
_BY_NAME |= {alias: FILE_TYPES[name] for alias, name in ALIASES.items()}
_BY_NAME |= {str(found.id): found for found in FILE_TYPES.values() if found.id is not None}


def file_type(name: str | FileType) -> FileType:
    """The file type called `name`: a name or alias in any case, or the number that GGUF files carry.

    Raises:
        UsageError: no such file type; the message lists them.

    Example:
        >>> file_type("q4_k") is file_type("15") is FILE_TYPES["Q4_K_M"]
        True
    """
    if isinstance(name, FileType):
        return name
    found = _BY_NAME.get(name.strip().upper())
    if found is None:
        raise UsageError(f"unknown file type {name!r}", hint=f"known file types: {', '.join((*FILE_TYPES, *ALIASES))}")
    return found
