"""The file types: the names by which a user asks for a quantization.

Source: llama.cpp's include/llama.h, src/llama-quant.cpp and tools/quantize/quantize.cpp.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

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
        """Whether it is a type of the converter (F32, F16, BF16, auto), whose file is not quantized afterwards."""
        return self == AUTO or (self.default_type is not None and self.default_type.is_float)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def named(cls, name: str | FileType) -> FileType:
        """The file type called `name`: a name or alias in any case, or the number that GGUF files carry.

        Raises:
            UsageError: no such file type; the message lists them.

        Example:
            >>> FileType.named("q4_k") is FileType.named("15") is FILE_TYPES["Q4_K_M"]
            True
        """
        if isinstance(name, FileType):
            return name
        found = _BY_NAME.get(name.strip().upper())
        if found is None:
            raise UsageError(f"unknown file type {name!r}", hint=_hint(name))
        return found


# What a model becomes if no file type is named.
DEFAULT_TYPE = "Q4_K_M"

AUTO = FileType("auto", None, None)
COPY = FileType("COPY", None, None)
# The file type of a file that keeps the NVFP4 blocks of its checkpoint. No file is quantized to it.
OF_NVFP4 = FileType("NVFP4", 39, TENSOR_TYPES["NVFP4"])
# Name, default type, and the value of general.file_type. None means the value that the default type has.
_ROWS: tuple[tuple[str, str, int | None], ...] = (
    ("F32", "F32", None),
    ("F16", "F16", None),
    ("BF16", "BF16", None),
    ("Q8_0", "Q8_0", None),
    ("Q4_0", "Q4_0", None),
    ("Q4_1", "Q4_1", None),
    ("Q5_0", "Q5_0", None),
    ("Q5_1", "Q5_1", None),
    ("Q2_K", "Q2_K", None),
    ("Q2_K_S", "Q2_K", 21),
    ("Q3_K_S", "Q3_K", 11),
    ("Q3_K_M", "Q3_K", None),
    ("Q3_K_L", "Q3_K", 13),
    ("Q4_K_S", "Q4_K", 14),
    ("Q4_K_M", "Q4_K", None),
    ("Q5_K_S", "Q5_K", 16),
    ("Q5_K_M", "Q5_K", None),
    ("Q6_K", "Q6_K", None),
    ("IQ1_S", "IQ1_S", None),
    ("IQ1_M", "IQ1_M", None),
    ("IQ2_XXS", "IQ2_XXS", None),
    ("IQ2_XS", "IQ2_XS", None),
    ("IQ2_S", "IQ2_XS", 28),
    ("IQ2_M", "IQ2_S", 29),
    ("IQ3_XXS", "IQ3_XXS", None),
    ("IQ3_XS", "IQ3_S", 22),
    ("IQ3_S", "IQ3_S", None),
    ("IQ3_M", "IQ3_S", 27),
    ("IQ4_XS", "IQ4_XS", None),
    ("IQ4_NL", "IQ4_NL", None),
    ("TQ1_0", "TQ1_0", None),
    ("TQ2_0", "TQ2_0", None),
    ("MXFP4_MOE", "MXFP4", 38),
    ("Q1_0", "Q1_0", None),
    ("Q2_0", "Q2_0", None),
)


def _file_type(name: str, default: TensorType, number: int | None) -> FileType:
    return FileType(name, default.file_type if number is None else number, default)


FILE_TYPES = {
    **{name: _file_type(name, TENSOR_TYPES[default], number) for name, default, number in _ROWS},
    COPY.name: COPY,
    AUTO.name: AUTO,
}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

# The word for all of them.
_ALL = "ALL"
# Those that are too small to be useful without an importance matrix. The recipe decides for each tensor.
_WITH_IMATRIX = ("IQ1_", "IQ2_", "IQ3_XXS", "IQ3_XS", "Q2_K_S")


def are_types(names: Iterable[str]) -> bool:
    """Whether there are names, and all of them are of file types."""
    found = [name.upper() in _BY_NAME for name in names]
    return bool(found) and all(found)


def _hint(name: str) -> str:
    """The types that a wrong name can only mean, or all."""
    meant = meant_types(name)
    return f"did you mean {' or '.join(meant)}?" if meant else f"known file types: {', '.join((*FILE_TYPES, *ALIASES))}"


def meant_types(name: str) -> list[str]:
    """The names of the types that a wrong name can only mean: those of the same letters, or that begin with them.

    Example:
        >>> meant_types("q5km"), meant_types("q5"), meant_types("model")
        (['Q5_K_M'], ['Q5_0', 'Q5_1', 'Q5_K_S', 'Q5_K_M'], [])
    """
    wanted = _letters(name)
    same = [known for known in FILE_TYPES if _letters(known) == wanted]
    return same or [known for known in FILE_TYPES if len(wanted) > 1 and _letters(known).startswith(wanted)]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).upper()


_BY_NAME = {name.upper(): found for name, found in FILE_TYPES.items()}
_BY_NAME |= {alias: FILE_TYPES[name] for alias, name in ALIASES.items()}
_BY_NAME |= {str(found.id): found for found in FILE_TYPES.values() if found.id is not None}


def names_of_types(names: Iterable[str], *, with_imatrix: bool) -> tuple[str, ...]:
    """The names; patterns such as `Q4_*`, and the word `all`, become the names of the types that they stand for.

    Args:
        names: Of file types, in any case.
        with_imatrix: There is an importance matrix; without one, a pattern leaves out the types that need it.

    Raises:
        UsageError: no type has such a name.

    Example:
        >>> names_of_types(["q4_k_*", "F16"], with_imatrix=False)
        ('Q4_K_S', 'Q4_K_M', 'F16')
    """
    found = (_matching(name, with_imatrix=with_imatrix) if _is_pattern(name) else (name,) for name in names)
    return tuple(dict.fromkeys(name for some in found for name in some))


def _is_pattern(name: str) -> bool:
    return name.strip().upper() == _ALL or not set("*?[").isdisjoint(name)


def _matching(pattern: str, *, with_imatrix: bool) -> tuple[str, ...]:
    wanted = pattern.strip().upper()
    every = (name for name, _, _ in _ROWS if wanted == _ALL or fnmatchcase(name, wanted))
    found = tuple(name for name in every if with_imatrix or not name.startswith(_WITH_IMATRIX))
    if not found:
        raise UsageError(
            f"no file type is called {pattern!r}" + ("" if with_imatrix else ", or it needs an importance matrix"),
            hint=f"known file types: {', '.join(FILE_TYPES)}",
        )
    return found
