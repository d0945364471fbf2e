"""Parses the options of a recipe from the texts in a request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gguf_forge.errors import UsageError
from gguf_forge.file_choices import FileChoices
from gguf_forge.recipe.importance.imatrix_file import read_imatrix
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
from gguf_forge.recipe.options import Options
from gguf_forge.recipe.overrides import (
    parse_key_override,
    parse_prune_layers,
    parse_target_type,
    parse_tensor_type,
    parse_tensor_type_file,
)
from gguf_forge.types.tensor_type import TensorType


def options_of(choices: FileChoices, folder: Path = Path()) -> Options:
    """Parses the options that change the mix of a file type, and reads the files that they name.

    Args:
        choices: A request.
        folder: Where relative paths to files begin.

    Raises:
        UsageError: a text does not say what it should.
        InputError: a file cannot be read.

    Example:
        >>> options_of(FileChoices(pure=True)).pure
        True
    """
    file = folder / choices.tensor_type_file if choices.tensor_type_file is not None else None
    from_file = parse_tensor_type_file(file) if file else ()
    return Options(
        pure=choices.pure,
        leave_output_tensor=choices.leave_output_tensor,
        output_tensor_type=_target(choices.output_tensor_type),
        token_embedding_type=_target(choices.token_embedding_type),
        tensor_types=(*map(parse_tensor_type, choices.tensor_type), *from_file),
        uncovered_type=_target(choices.uncovered_type),
        key_overrides=tuple(map(parse_key_override, choices.override_kv)),
        force=choices.force,
        prune_layers=parse_prune_layers(choices.prune_layers) if choices.prune_layers is not None else (),
        allow_requantize=choices.allow_requantize,
        imatrix=_importance(choices, folder),
        read_from=(file,) if file else (),
        as_reference=choices.as_reference,
    )


def _target(name: str | None) -> TensorType | None:
    return parse_target_type(name) if name is not None else None


def _importance(choices: FileChoices, folder: Path) -> ImportanceMatrix | None:
    if choices.imatrix is None:
        if choices.include_weights or choices.exclude_weights:
            raise UsageError("--include-weights and --exclude-weights choose from a matrix: give one with --imatrix")
        return None
    matrix = read_imatrix(folder / choices.imatrix).selected(choices.include_weights, choices.exclude_weights)
    # The path is recorded in the output as it was given.
    return replace(matrix, file=choices.imatrix)
