"""Decides which tensors a quantized file has, their order, and the type of each. No weight is read.

Source: llama.cpp's src/llama-quant.cpp.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.recipe.file_types import COPY
from gguf_forge.recipe.mixes import Mix
from gguf_forge.recipe.model_facts import ModelFacts
from gguf_forge.recipe.options import Options, TypeOverride
from gguf_forge.recipe.pruning import prune
from gguf_forge.recipe.tensor_rules import Role, may_quantize, role_of, trimmed
from gguf_forge.types.tensor_type import F16, TENSOR_TYPES, ImportanceUse, TensorType

_SMALL_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Assignment:
    """One tensor of the output file.

    Args:
        info: The tensor in the base file.
        name: Its name in the output file, which differs from `info.name` where layers before it were pruned.
        wanted: The type that the rules name.
        type: The type it gets: another one where a row of `wanted` would not be a whole number of blocks.
        needs_imatrix: Whether `type` is too small to be useful without an importance matrix.
        override: The `--tensor-type` that decided, if any.
        is_kept: Whether its source has blocks of `type` already, which are kept.
        rule: What decided the type, in words: an option, or the file type's own mix.
    """

    info: TensorInfo
    name: str
    wanted: TensorType
    type: TensorType
    needs_imatrix: bool = False
    override: TypeOverride | None = None
    is_kept: bool = False
    rule: str = ""

    @property
    def fallback(self) -> bool:
        """Whether the wanted type was impossible for rows of this length."""
        return self.type != self.wanted

    @property
    def output(self) -> TensorInfo:
        """The tensor as the output file describes it. Its shape lacks trailing dimensions of 1."""
        return TensorInfo(self.name, trimmed(self.info.shape), self.type)


def assign(
    tensors: Sequence[TensorInfo],
    metadata: Metadata,
    options: Options,
    kept: Mapping[str, TensorType] = MappingProxyType({}),
) -> tuple[Assignment, ...]:
    """The tensors of the file that llama-quantize would write, in its order.

    Args:
        tensors: Those of the base file, in any order if it need not be kept.
        metadata: That of the base file.
        kept: Types of tensors that stay as they are, unless an option names another type for them. The mix counts them
            like any others, so the types of the rest do not depend on them.

    Raises:
        UsageError: the file type is `auto`, or every layer would be pruned.
        UnsupportedError: a row does not fit the wanted type, and no other type is defined for that case.
        InputError: the metadata lacks the architecture or the number of layers.

    Example:
        >>> from gguf_forge.gguf_file.values import string, u32
        >>> from gguf_forge.recipe.file_types import FileType
        >>> from gguf_forge.types.tensor_type import F32
        >>> base = [TensorInfo("output.weight", (256, 8), F32), TensorInfo("output_norm.weight", (256,), F32)]
        >>> header = {"general.architecture": string("llama"), "llama.block_count": u32(1)}
        >>> [str(a.type) for a in assign(base, header, Options(FileType.named("Q4_K_M")))]
        ['Q6_K', 'F32']
    """
    remaining = prune(tensors, options.prune_layers)
    if options.keep_order:
        place = {info.name: number for number, info in enumerate(tensors)}
        remaining = tuple(sorted(remaining, key=lambda pair: place[pair[0].name]))
    if options.file_type == COPY:
        return tuple(Assignment(info, name, info.type, info.type, rule="as it is") for info, name in remaining)
    default = options.file_type.default_type
    if default is None:
        raise UsageError(f"a file cannot be quantized to {options.file_type}", hint="name a file type")
    facts = ModelFacts.read(metadata, options.key_overrides)
    mix = Mix(options, default, facts, (name for _, name in remaining))
    assigned = (_assignment(info, name, default, facts, options, mix) for info, name in remaining)
    return tuple(_kept(a, options, kept.get(a.info.name)) for a in assigned)


def _kept(a: Assignment, options: Options, kept: TensorType | None) -> Assignment:
    """An assignment after it is decided whether the tensor keeps its blocks."""
    role = role_of(a.name)
    is_left = options.leave_output_tensor and role is Role.OUTPUT
    if kept is None or a.override or is_left or _forced(a.name, role, None, options):
        return a
    return Assignment(a.info, a.name, kept, kept, is_kept=True, rule="--keep-quantized")


def _assignment(
    info: TensorInfo, name: str, default: TensorType, facts: ModelFacts, options: Options, mix: Mix
) -> Assignment:
    role = role_of(name)
    is_left = options.leave_output_tensor and role is Role.OUTPUT
    if is_left or not may_quantize(name, info.shape, facts.architecture):
        rule = "--leave-output-tensor" if is_left else "never quantized"
        return Assignment(info, name, info.type, info.type, rule=rule)
    override = next((o for o in options.tensor_types if o.pattern.search(name)), None)
    forced = _forced(name, role, override, options)
    rule = f"{'' if options.file_type.is_float else 'mix of '}{options.file_type}"
    if forced or options.file_type.is_float:
        wanted = granted = forced or default
        override = None
        if forced:
            rule = "--output-tensor-type" if role is Role.OUTPUT else "--token-embedding-type"
    elif override:
        wanted, granted = override.type, _fitting(info, override.type)
        rule = f"--tensor-type {override}"
    else:
        wanted = default if options.pure else mix.next(name, info.shape)
        granted = _fitting(info, wanted)
        rule = "--pure" if options.pure else rule
    needs_imatrix = _needs_imatrix(granted, role, options)
    if needs_imatrix and options.uncovered_type and options.lacks_importance_of(info.name):
        wanted, granted = options.uncovered_type, _fitting(info, options.uncovered_type)
        needs_imatrix = _needs_imatrix(granted, role, options)
        rule = "--uncovered-type"
    if granted != wanted:
        rule = f"instead of {wanted}, which rows of {info.n_per_row} do not fit"
    return Assignment(info, name, wanted, granted, needs_imatrix, override, rule=sys.intern(rule))


def _needs_imatrix(granted: TensorType, role: Role, options: Options) -> bool:
    return role not in (Role.EMBEDDING, Role.OUTPUT) and (
        granted.importance >= ImportanceUse.WANTED or (granted.name == "Q2_K" and options.file_type.name == "Q2_K_S")
    )


def _forced(name: str, role: Role, override: TypeOverride | None, options: Options) -> TensorType | None:
    """The type of --token-embedding-type or --output-tensor-type. They outrank all other rules and never fall back."""
    if role is Role.OUTPUT:
        return options.output_tensor_type
    if role is Role.EMBEDDING and not (override and name == "per_layer_token_embd.weight"):
        return options.token_embedding_type
    return None


def _fitting(info: TensorInfo, wanted: TensorType) -> TensorType:
    """`wanted`, or the type that llama-quantize takes instead if a row is not a whole number of its blocks."""
    if info.n_per_row % wanted.block_elements == 0:
        return wanted
    granted = TENSOR_TYPES[wanted.fallback] if wanted.fallback else wanted
    if granted == wanted and wanted.block_elements > _SMALL_BLOCK:
        raise UnsupportedError(
            f"a row of {info.n_per_row} values is not a multiple of the block size of {wanted}, "
            f"{wanted.block_elements}, and no smaller type stands in for {wanted}",
            tensor=info.name,
            hint="give its type with --tensor-type",
        )
    return granted if info.n_per_row % granted.block_elements == 0 else F16
