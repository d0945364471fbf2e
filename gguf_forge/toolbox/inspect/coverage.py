"""What an importance matrix holds, and how well it fits a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
from gguf_forge.recipe.tensor_rules import Role, may_quantize, role_of


@dataclass(frozen=True)
class Coverage:
    """Names of tensors: quantizable ones without importance, ones whose importance has another length, and entries
    of the matrix that the model has no tensor for."""

    missing: tuple[str, ...]
    misfits: tuple[str, ...]
    unknown: tuple[str, ...]

    def lines(self) -> Iterable[str]:
        for names, problem in (
            (self.missing, "that can be quantized, but that the matrix does not cover"),
            (self.misfits, "with another number of columns than the matrix"),
            (self.unknown, "of the matrix that the model lacks"),
        ):
            if names:
                yield f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'} {problem}: {', '.join(names)}"
        if usual := [name for name in self.missing if role_of(name) in (Role.EMBEDDING, Role.OUTPUT)]:
            yield f"llama-imatrix rarely measures {' and '.join(usual)}: rounded without importance, as is usual"
        if not (self.missing or self.misfits or self.unknown):
            yield "the matrix has importance for every tensor of the model that can be quantized, and for no other"


def columns_of_half(importance: NDArray[np.float32]) -> int:
    """How many columns, the most important ones first, hold half of the importance.

    Example:
        >>> columns_of_half(np.float32([1, 1, 6, 1, 1])), columns_of_half(np.float32([1, 1, 1, 1]))
        (1, 2)
    """
    sums = np.cumsum(np.sort(importance, axis=None)[::-1], dtype=np.float64)
    return int(np.searchsorted(sums, sums[-1] / 2)) + 1 if sums.size and sums[-1] > 0 else 0


def covered(matrix: ImportanceMatrix, tensors: Sequence[TensorInfo], architecture: str) -> Coverage:
    """Compares the tensors of a model with the entries of a matrix.

    Args:
        matrix: The importance matrix.
        tensors: Those of the model's GGUF file.
        architecture: Its `general.architecture`.
    """
    quantizable = [info for info in tensors if may_quantize(info.name, info.shape, architecture)]
    names = {info.name for info in tensors}
    return Coverage(
        missing=tuple(info.name for info in quantizable if info.name not in matrix.importance),
        misfits=tuple(i.name for i in quantizable if i.name in matrix.importance and not matrix.fits(i)),
        unknown=tuple(name for name in matrix.importance if name not in names),
    )
