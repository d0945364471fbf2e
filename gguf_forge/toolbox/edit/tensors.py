"""Edits of tensors: which ones a file keeps, and their names. Their bytes stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

from gguf_forge.errors import UsageError, printable
from gguf_forge.gguf_file.header import padded
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.name_pattern import NamePattern, found_in


@dataclass(frozen=True)
class TensorChange:
    """A tensor that gets another name, or none: then it is left out."""

    name: str
    new_name: str | None


class Copy(NamedTuple):
    """Bytes of the old file from `start` on, and their place in the new one, counted from the end of its header."""

    start: int
    target: int
    nbytes: int


def changes_of_tensors(
    tensors: Sequence[GgufTensor], drop: Iterable[str], rename: Mapping[str, str]
) -> tuple[TensorChange, ...]:
    """The tensors that are left out or get another name, in file order.

    Args:
        tensors: Of a file.
        drop: Patterns; a tensor is left out if one is found in its name.
        rename: Pattern -> what takes the place of the first match. The first pattern that is found in a name counts.

    Raises:
        UsageError: a pattern is wrong, or found in no name; two tensors would have the same name, or one has none.
    """
    dropping = [NamePattern.compile(source) for source in drop]
    renaming = [(NamePattern.compile(source), replacement) for source, replacement in rename.items()]
    dropped, used = found_in(dropping, (tensor.name for tensor in tensors))
    changes: list[TensorChange] = []
    for tensor in tensors:
        if tensor.name in dropped:
            changes.append(TensorChange(tensor.name, None))
            continue
        for pattern, replacement in renaming:
            new_name = pattern.replace(tensor.name, replacement)
            if new_name is not None:
                used.add(pattern.source)
                if new_name != tensor.name:
                    changes.append(TensorChange(tensor.name, new_name))
                break
    _refuse_unused(dropping, used, "--drop-tensor")
    _refuse_unused([pattern for pattern, _ in renaming], used, "--rename-tensor")
    _refuse_doubled(tensors, changes)
    return tuple(changes)


def _refuse_unused(patterns: Iterable[NamePattern], used: set[str], option: str) -> None:
    for pattern in patterns:
        if pattern.source not in used:
            hint = "`gguf-forge inspect` lists the tensors"
            raise UsageError(f"{option} {printable(pattern.source)!r}: no tensor has such a name", hint=hint)


def _refuse_doubled(tensors: Sequence[GgufTensor], changes: Sequence[TensorChange]) -> None:
    names = {change.name: change.new_name for change in changes}
    origins: dict[str, str] = {}
    for tensor in tensors:
        name = names.get(tensor.name, tensor.name)
        if name is None:
            continue
        if not name or "\0" in name:
            raise UsageError("the new name would be empty or have a NUL in it", tensor=printable(tensor.name))
        if name in origins:
            both = f"{printable(origins[name])} and {printable(tensor.name)}"
            raise UsageError(f"{both} would both be called {printable(name)}", hint="drop one of them, or rename both")
        origins[name] = tensor.name


def renamed(tensors: Sequence[GgufTensor], changes: Sequence[TensorChange]) -> list[tuple[GgufTensor, TensorInfo]]:
    """The tensors that stay, and how the new file describes them."""
    names = {change.name: change.new_name for change in changes}
    kept = ((tensor, names.get(tensor.name, tensor.name)) for tensor in tensors)
    return [(tensor, replace(tensor.info, name=name)) for tensor, name in kept if name is not None]


def as_they_lie(tensors: Sequence[GgufTensor], data_offset: int, size: int) -> tuple[list[int], list[Copy]]:
    """Offsets and copies of a file that keeps all tensors, with the bytes between and after them."""
    offsets = [tensor.offset - data_offset for tensor in tensors]
    return offsets, [Copy(data_offset, 0, max(0, size - data_offset))] if tensors else []


def moved_together(tensors: Sequence[GgufTensor], alignment: int) -> tuple[list[int], list[Copy], int]:
    """Offsets and copies of a file that keeps these tensors alone, and the bytes of its data."""
    *offsets, nbytes = [0, *accumulate(padded(tensor.nbytes, alignment) for tensor in tensors)]
    copies = [Copy(tensor.offset, target, tensor.nbytes) for tensor, target in zip(tensors, offsets, strict=True)]
    return offsets, copies, nbytes
