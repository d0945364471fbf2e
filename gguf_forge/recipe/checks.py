"""Refuses before any work what llama-quantize refuses or crashes on.

Source: llama.cpp's src/llama-quant.cpp and ggml_quantize_chunk in ggml/src/ggml.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gguf_forge.errors import ForgeError, InputError, UnsupportedError, UsageError
from gguf_forge.recipe.assign import Assignment
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
from gguf_forge.recipe.options import Options
from gguf_forge.recipe.tensor_rules import Role, layer_of, role_of
from gguf_forge.recipe.weighing import is_used, named, predicting_layers, quantized, weighs

_INTEGERS = ("I8", "I16", "I32", "I64", "F64")
_NAMED = 3  # tensors that a message names


def check(assignments: Iterable[Assignment], options: Options, last: range = range(0)) -> None:
    """Refuse assignments that cannot be carried out, naming the tensors.

    Args:
        assignments: Of all tensors.
        options: That they were made with.
        last: The numbers of the layers for multi-token prediction.

    Raises:
        UsageError: an importance matrix is needed and missing, a source is already quantized, or a type that
            was asked for does not fit the rows.
        InputError: the importance matrix belongs to another model.
        UnsupportedError: a source of integers or doubles would have to be quantized.
    """
    every = tuple(assignments)
    changed = tuple(a for a in every if a.type != a.info.type)
    imatrix = options.imatrix if options.has_imatrix else None
    _refuse_strange(imatrix, every, options)
    # Without an importance matrix, llama-quantize refuses even tensors that have the small type already.
    wanting = [a for a in (changed if imatrix else every) if a.needs_imatrix and not weighs(imatrix, a)]
    _refuse(UsageError, *_wanting(wanting, options, last), wanting)
    _refuse(
        UsageError,
        "the row length is not a multiple of the block size of the type asked for",
        "choose another --output-tensor-type or --token-embedding-type",
        [a for a in changed if a.info.n_per_row % a.type.block_elements],
    )
    _refuse(
        InputError,
        "the importance matrix does not fit this model: the number of columns differs",
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


def _misfits(imatrix: ImportanceMatrix, a: Assignment) -> bool:
    # Embeddings are looked up, not multiplied. So an importance that does not fit them is ignored.
    if not weighs(imatrix, a) or role_of(a.name) is Role.EMBEDDING:
        return False
    return not imatrix.fits(a.info)


def _refuse_strange(imatrix: ImportanceMatrix | None, every: Iterable[Assignment], options: Options) -> None:
    """Raise InputError if the matrix has no importance for any tensor that is quantized."""
    changed = [a.info.name for a in quantized(every)]
    if imatrix is None or not changed or is_used(every, options) or options.as_reference:
        return
    raise InputError(
        f"none of its {len(imatrix.importance)} entries belongs to a tensor that is quantized: it has "
        f"{named(tuple(imatrix.importance), 2)}, and the model has {named(changed, 2)}",
        file=imatrix.file,
        hint="use a matrix that was made from this model, or leave out --imatrix",
    )


def _wanting(wanting: Sequence[Assignment], options: Options, last: range) -> tuple[str, str]:
    """What to say of tensors that need importance and have none, and what helps."""
    if not options.has_imatrix:
        problem = f"{options.file_type} needs an importance matrix for {len(wanting)} tensors"
        return problem, "give a matrix that has them with --imatrix, or choose a larger type"
    lost = predicting_layers((a.info.name for a in wanting), last)
    problem = f"{options.file_type} needs importance for {len(wanting)} tensors that the matrix lacks{lost}"
    layers = sorted({layer for a in wanting if (layer := layer_of(a.name)) is not None})
    if not lost or not all(layer_of(a.info.name) in last for a in wanting):
        return problem, "give them a larger type, such as --uncovered-type Q6_K, or give a matrix that has them"
    numbers = str(layers[0]) if len(layers) == 1 else f"({'|'.join(map(str, layers))})"
    return problem, f"give them a larger type: --uncovered-type Q6_K, or --tensor-type '^blk\\.{numbers}\\.=q6_k'"


def _refuse(error: type[ForgeError], problem: str, hint: str, bad: list[Assignment]) -> None:
    if not bad:
        return
    raise error(f"{problem}: {named([a.name for a in bad], _NAMED)}", hint=hint)
