"""Refuses before any work what llama-quantize refuses or crashes on.

Source: llama.cpp's src/llama-quant.cpp and ggml_quantize_chunk in ggml/src/ggml.c.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import ForgeError, InputError, UnsupportedError, UsageError
from gguf_forge.recipe.assign import Assignment
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
from gguf_forge.recipe.options import Options
from gguf_forge.recipe.tensor_rules import Role, role_of

_MAX_NAMED = 8
_INTEGERS = ("I8", "I16", "I32", "I64", "F64")


def check(assignments: Iterable[Assignment], options: Options) -> None:
    """Refuse assignments that cannot be carried out, naming the tensors.

    Raises:
        UsageError: an importance matrix is needed and missing, a source is already quantized, or a type that
            was asked for does not fit the rows.
        InputError: the importance matrix belongs to a model of another shape.
        UnsupportedError: a source of integers or doubles would have to be quantized.
    """
    every = tuple(assignments)
    changed = tuple(a for a in every if a.type != a.info.type)
    imatrix = options.imatrix if options.has_imatrix else None
    # Without an importance matrix, llama-quantize refuses even tensors that have the small type already.
    wanting = [a for a in (changed if imatrix else every) if a.needs_imatrix and not _weighs(imatrix, a)]
    _refuse(
        UsageError,
        f"{options.file_type} needs an importance matrix for {len(wanting)} tensors",
        "give a matrix that has them with --imatrix, or choose a larger type",
        wanting,
    )
    _refuse(
        UsageError,
        "the row length is no whole number of blocks of the type asked for",
        "choose another --output-tensor-type or --token-embedding-type",
        [a for a in changed if a.info.n_per_row % a.type.block_elements],
    )
    _refuse(
        InputError,
        "the importance matrix has another number of values than the tensor has columns",
        "use one that was made from this model",
        [a for a in changed if imatrix and _misfits(imatrix, a)],
    )
    _refuse(
        UnsupportedError,
        "only F32, F16 and BF16 tensors can be quantized",
        "please report the model",
        [a for a in changed if a.info.type.name in _INTEGERS],
    )
    _refuse(
        UsageError,
        "already quantized",
        "start from the original weights, or add --allow-requantize, which loses quality",
        [a for a in changed if not a.info.type.is_float and not options.allow_requantize],
    )


def importance_of(a: Assignment, imatrix: ImportanceMatrix | None) -> NDArray[np.float32] | None:
    """The importance that `a` is quantized with: of each column, for each of its matrices in turn; None for none."""
    if a.is_kept or imatrix is None or not _weighs(imatrix, a) or not imatrix.fits(a.info):
        return None
    return imatrix.importance[a.info.name]


def _weighs(imatrix: ImportanceMatrix | None, a: Assignment) -> bool:
    return imatrix is not None and a.info.name in imatrix.importance


def _misfits(imatrix: ImportanceMatrix, a: Assignment) -> bool:
    # Embeddings are looked up, not multiplied. So an importance that does not fit them is ignored.
    if not _weighs(imatrix, a) or role_of(a.name) is Role.EMBEDDING:
        return False
    return not imatrix.fits(a.info)


def _refuse(error: type[ForgeError], problem: str, hint: str, bad: list[Assignment]) -> None:
    if not bad:
        return
    names = ", ".join(a.name for a in bad[:_MAX_NAMED])
    more = f" and {len(bad) - _MAX_NAMED} more" if len(bad) > _MAX_NAMED else ""
    raise error(f"{problem}: {names}{more}", hint=hint)
