"""The importance that tensors are quantized with, and what a user should know of how a matrix fits a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import printable
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.recipe.assign import Assignment
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
from gguf_forge.recipe.options import Options
from gguf_forge.recipe.tensor_rules import Role, layer_of, role_of
from gguf_forge.types.tensor_type import ImportanceUse

_MAX_NAMED = 8
_PREDICTING = "layers that predict further tokens, which llama-imatrix does not run"


def importance_of(a: Assignment, options: Options) -> NDArray[np.float32] | None:
    """The importance that `a` is quantized with: of each column, for each of its matrices in turn; None for none.

    Columns that were not seen in calibration are zero in the matrix. Where all columns that share a scale are zero, the
    quantizer would lose their weights. They get the mean importance of the other columns of their matrix, except if
    `options.as_reference` is set.
    """
    stored = _stored(a, options.imatrix)
    if stored is None or options.as_reference:
        return stored
    unseen = _unseen(a, stored)
    return _filled(stored, unseen, a.info.n_per_row) if unseen.any() else stored


def weighs(imatrix: ImportanceMatrix | None, a: Assignment) -> bool:
    """Whether the matrix has importance for a tensor, of any length."""
    return imatrix is not None and a.info.name in imatrix.importance


def quantized(assignments: Iterable[Assignment]) -> tuple[Assignment, ...]:
    """The tensors that are quantized, and do not keep the values or blocks that they have."""
    return tuple(a for a in assignments if a.type != a.info.type and not a.is_kept)


def is_used(assignments: Iterable[Assignment], options: Options) -> bool:
    """Whether the matrix has importance for a tensor that is quantized."""
    return any(weighs(options.imatrix, a) for a in quantized(assignments))


def named(names: Sequence[str], more: int = _MAX_NAMED) -> str:
    """The first few of many names, and how many more there are.

    Example:
        >>> named(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    shown = ", ".join(map(printable, names[:more]))
    return f"{shown} and {len(names) - more} more" if len(names) > more else shown


def predicting_layers(names: Iterable[str], last: range) -> str:
    """Words for tensors of which some lie in the `last` layers, those for multi-token prediction; empty if none do."""
    count = sum(layer_of(name) in last for name in names)
    return f" ({count} of them in the {_PREDICTING})" if count else ""


def weighing_warnings(
    tensors: Sequence[TensorInfo], assignments: Sequence[Assignment], options: Options, last: range
) -> tuple[str, ...]:
    """What a user should know of the matrix: what it lacks, what the model lacks, columns that were never seen.

    Args:
        tensors: Those of the base file.
        assignments: Those of the output.
        options: With the matrix.
        last: The numbers of the layers for multi-token prediction.
    """
    imatrix = options.imatrix
    if imatrix is None:
        return ()
    if not imatrix.importance:
        return ("--include-weights and --exclude-weights leave nothing of the importance matrix, so it is not used",)
    changed = quantized(assignments)
    if not changed:
        return ("no tensor is quantized, so the importance matrix is not used",)
    return (*_lacking(changed, imatrix, last), *_unknown(tensors, imatrix), *_zeros(changed, options))


def _lacking(changed: Iterable[Assignment], imatrix: ImportanceMatrix, last: range) -> Iterable[str]:
    """The embeddings are looked up and the output is usually left out, so a matrix need not have them."""
    using = [
        a.info.name
        for a in changed
        if a.type.importance > ImportanceUse.IGNORED and role_of(a.name) not in (Role.EMBEDDING, Role.OUTPUT)
    ]
    without = [name for name in using if name not in imatrix.importance and name not in imatrix.left_out]
    if without:
        yield (
            f"{len(without)} of {len(using)} quantized tensors have no importance in the matrix"
            f"{predicting_layers(without, last)}: {named(without)}"
        )


def _unknown(tensors: Iterable[TensorInfo], imatrix: ImportanceMatrix) -> Iterable[str]:
    have = {info.name for info in tensors}
    unknown = [name for name in imatrix.importance if name not in have]
    if unknown:
        yield (
            f"{len(unknown)} of {len(imatrix.importance)} entries of the importance matrix belong to no tensor of this "
            f"model: {named(unknown)}"
        )


def _zeros(changed: Iterable[Assignment], options: Options) -> Iterable[str]:
    counts = {
        a.info.name: int(np.count_nonzero(_unseen(a, stored)))
        for a in changed
        for stored in [_stored(a, options.imatrix)]
        if stored is not None
    }
    lost = [f"{printable(name)} ({count} columns)" for name, count in counts.items() if count]
    if lost:
        what = (
            "their weights are lost, as with llama-quantize"
            if options.as_reference
            else "such columns were not seen in calibration, and count as much as the others do on average"
        )
        more = f" and {len(lost) - _MAX_NAMED} more" if len(lost) > _MAX_NAMED else ""
        yield (
            f"the importance of {len(lost)} tensors is zero in all columns that share a scale; {what}: "
            f"{', '.join(lost[:_MAX_NAMED])}{more}"
        )


def _stored(a: Assignment, imatrix: ImportanceMatrix | None) -> NDArray[np.float32] | None:
    if a.is_kept or imatrix is None or not weighs(imatrix, a) or not imatrix.fits(a.info):
        return None
    return imatrix.importance[a.info.name]


def _unseen(a: Assignment, importance: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of each column, whether it and all columns that share a scale with it have no importance."""
    if a.type.importance == ImportanceUse.IGNORED or a.type.levels is None:
        return np.zeros(importance.shape, bool)
    size = a.type.levels.values_per_scale
    unseen: NDArray[np.bool_] = np.repeat(~importance.reshape(-1, size).any(axis=1), size)
    return unseen


def _filled(importance: NDArray[np.float32], unseen: NDArray[np.bool_], n_per_row: int) -> NDArray[np.float32]:
    """The importance with the mean of each matrix's other columns in the unseen ones; 1 if it has no others."""
    filled: NDArray[np.float32] = importance.reshape(-1, n_per_row).copy()
    for columns, mask in zip(filled, unseen.reshape(-1, n_per_row), strict=True):
        columns[mask] = 1.0 if mask.all() else columns[~mask].mean(dtype=np.float64)
    return filled.ravel()
