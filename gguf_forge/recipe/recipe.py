"""A recipe: all that is decided about a quantized file before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from gguf_forge.errors import ForgeError, UsageError, printable
from gguf_forge.gguf_file.key_types import problem_of, problems
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.recipe.assign import Assignment, assign
from gguf_forge.recipe.checks import check
from gguf_forge.recipe.file_types import COPY
from gguf_forge.recipe.header import quantized_metadata
from gguf_forge.recipe.model_facts import ModelFacts
from gguf_forge.recipe.options import Options
from gguf_forge.recipe.pruned_keys import keys_after_pruning, keys_by_number
from gguf_forge.recipe.tensor_rules import layer_of
from gguf_forge.recipe.weighing import is_used, named, weighing_warnings
from gguf_forge.types.tensor_type import TensorType

WOULD_BE_REFUSED = "it would be refused: "  # begins the warning of a plan that cannot be carried out


@dataclass(frozen=True)
class Recipe:
    """Tensors and keys of the output file in file order, and warnings for the user."""

    assignments: tuple[Assignment, ...]
    metadata: Metadata
    warnings: tuple[str, ...]


def make_recipe(
    tensors: Sequence[TensorInfo],
    metadata: Metadata,
    options: Options,
    kept: Mapping[str, TensorType] = MappingProxyType({}),
    *,
    only_planned: bool = False,
) -> Recipe:
    """Decide everything about the file that llama-quantize would make of a base file.

    Args:
        tensors: Those of the base file, in any order.
        metadata: That of the base file.
        kept: Types of tensors that keep the blocks of their source.
        only_planned: If `check` refuses something, this is a warning and no error.

    Raises:
        ForgeError: whatever `assign`, `check` and `quantized_metadata` refuse.
    """
    _refuse_overrides(metadata, options)
    assignments = assign(tensors, metadata, options, kept)
    last = range(0) if options.file_type == COPY else ModelFacts.read(metadata, options.key_overrides).predicting
    refused: tuple[str, ...] = ()
    try:
        check(assignments, options, last)
    except ForgeError as error:
        if not only_planned:
            raise
        refused = (f"{WOULD_BE_REFUSED}{error.as_written}",)
    has_use = options.as_reference or is_used(assignments, options)
    header = quantized_metadata(tensors, metadata, options if has_use else replace(options, imatrix=None))
    warnings = (
        *_warnings(tensors, assignments, options),
        *_strange_keys(metadata),
        *(_pruning_warnings(tensors, metadata, options, last) if options.prune_layers else ()),
        *weighing_warnings(tensors, assignments, options, last),
        *refused,
    )
    return Recipe(assignments, header, warnings)


def _warnings(tensors: Sequence[TensorInfo], assignments: Sequence[Assignment], options: Options) -> tuple[str, ...]:
    used = {a.override for a in assignments}
    idle = [o for o in options.tensor_types if o not in used]
    effect = f"is ignored for {options.file_type}" if options.file_type.is_float else "decides no tensor's type"
    layers = {layer_of(info.name) for info in tensors}
    absent = [f"--prune-layers: there is no layer {n}" for n in options.prune_layers if n not in layers]
    return (*(f"--tensor-type {o} {effect}" for o in idle), *absent)


def _pruning_warnings(
    tensors: Sequence[TensorInfo], metadata: Metadata, options: Options, last: range
) -> tuple[str, ...]:
    """What a user should know of the keys after layers were pruned."""
    architecture = str(metadata["general.architecture"].data)
    predicting = [layer for layer in options.prune_layers if layer in last]
    by_number = keys_by_number(metadata, architecture)
    wrong = keys_after_pruning(tensors, metadata, architecture, options.prune_layers) if options.as_reference else {}
    found = {
        f"--prune-layers leaves out layers that predict further tokens: {named([*map(str, predicting)])}": predicting,
        f"after --prune-layers, keys that go by the layers' numbers may be wrong: {named(by_number)}": by_number,
        f"--prune-layers does not change {named([*wrong])}, so the file may not load; see --as-reference": wrong,
    }
    return tuple(words for words, is_so in found.items() if is_so)


def _refuse_overrides(metadata: Metadata, options: Options) -> None:
    """Raise UsageError if --override-kv sets a standard key to what no reader takes."""
    architecture = str(metadata["general.architecture"].data) if "general.architecture" in metadata else ""
    for override in options.key_overrides if not (options.force or options.as_reference) else ():
        problem = problem_of(override.key, override.value, architecture)
        if problem is not None:
            raise UsageError(f"--override-kv: {printable(problem)}", hint="give another value, or add --force")


def _strange_keys(metadata: Metadata) -> tuple[str, ...]:
    """Keys of the base file that no reader takes. They are copied, as llama-quantize does."""
    architecture = str(metadata["general.architecture"].data) if "general.architecture" in metadata else ""
    found = problems(metadata, architecture)
    return (f"{len(found)} keys may keep readers from loading the file: {named(found)}",) if found else ()
