"""Split files: the tensors and keys of each part. llama.cpp splits files in three ways, and all three are here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gguf_forge.engine.batches import Shard
from gguf_forge.errors import UsageError
from gguf_forge.file_choices import SplitChoices
from gguf_forge.gguf_file.header import DEFAULT_ALIGNMENT
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.rules import GGML, Bounds
from gguf_forge.gguf_file.split import SPLIT_COUNT, part_keys, part_path, parts_within
from gguf_forge.gguf_file.values import ByteOrder, Metadata
from gguf_forge.option import parse_size
from gguf_forge.planning.file_plan import TensorChoice

# The number of tensors in a part that llama-gguf-split uses if no bound is given.
_USUAL_MAX_TENSORS = 128
_MOST_PARTS = 0xFFFF


@dataclass(frozen=True)
class Split:
    """How the output is split: into the parts of the input, or into parts of a bounded size. Falsy: not at all.

    Args:
        keep: The parts of the input (`--keep-split`).
        max_size: Bytes of tensors in a part; a tensor that is larger has a part of its own.
        max_tensors: Tensors in a part.
        no_tensor_first: The first part has the keys and no tensor.
        partial: With `keep`, the parts whose input is there (`--partial`).

    Raises:
        UsageError: bounds that are not positive, anything but `partial` together with `keep`, or `partial` alone.

    Example:
        >>> Split(max_size=2_000_000_000).max_tensors is None
        True
    """

    keep: bool = False
    max_size: int | None = None
    max_tensors: int | None = None
    no_tensor_first: bool = False
    partial: bool = False

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.max_size, self.max_tensors) if bound is not None]
        if any(bound <= 0 for bound in bounds):
            raise UsageError("a part of a split must have room for something", hint="give a positive size or number")
        if self.keep and (bounds or self.no_tensor_first):
            raise UsageError(
                "--keep-split cannot be combined with other options of a split",
                hint="leave out --split-max-size, --split-max-tensors and --no-tensor-first-split",
            )
        if self.partial and not self.keep:
            hint = "add --keep-split"
            raise UsageError("--partial makes some parts of a split, and no file by itself", hint=hint)

    def __bool__(self) -> bool:
        return self != Split()


class SplitSize(NamedTuple):
    """How many parts a split has, and how many tensors they have together."""

    parts: int
    tensors: int


def split_of(choices: SplitChoices) -> Split:
    """How the output is split, from the options in a request.

    Raises:
        UsageError: the size is none or not positive, or there is more than one way.
    """
    size = parse_size(choices.split_max_size) if choices.split_max_size is not None else None
    return Split(choices.keep_split, size, choices.split_max_tensors, choices.no_tensor_first_split, choices.partial)


def whole_file(
    path: Path,
    metadata: Metadata,
    chosen: Sequence[TensorChoice],
    *,
    vocab_only: bool = False,
    byte_order: ByteOrder = "<",
    bounds: Bounds = GGML,
) -> tuple[Shard, ...]:
    """A file that is not split; `vocab_only`, `byte_order` and `bounds` as for `lay_out`."""
    infos = [tensor.info for tensor in chosen]
    layout = lay_out(metadata, infos, vocab_only=vocab_only, byte_order=byte_order, bounds=bounds)
    return (Shard(path, layout, tuple(tensor.source for tensor in chosen)),)


def split_as_converter(
    path: Path, metadata: Metadata, chosen: Sequence[TensorChoice], split: Split, *, byte_order: ByteOrder = "<"
) -> tuple[Shard, ...]:
    """The parts as llama.cpp's converter makes them. If one part is enough, it is an ordinary file.

    Source: gguf_writer.py of gguf-py.
    """
    parts = parts_within((tensor.info for tensor in chosen), split.max_size, split.max_tensors, alignment=1)
    if max(parts, default=0) == 0 and not split.no_tensor_first:
        return whole_file(path, metadata, chosen, byte_order=byte_order)
    return _shards(path, metadata, chosen, parts, first_is_empty=split.no_tensor_first, byte_order=byte_order)


def split_as_gguf_split(
    path: Path,
    metadata: Metadata,
    chosen: Sequence[TensorChoice],
    split: Split,
    *,
    byte_order: ByteOrder = "<",
    bounds: Bounds = GGML,
) -> tuple[Shard, ...]:
    """The parts that llama-gguf-split makes of the whole file; there may be one only.

    Source: gguf-split.cpp of llama.cpp.
    """
    unbounded = split.max_size is None and split.max_tensors is None
    max_tensors = _USUAL_MAX_TENSORS if unbounded else split.max_tensors
    infos = (tensor.info for tensor in chosen)
    parts = parts_within(infos, split.max_size, max_tensors, alignment=DEFAULT_ALIGNMENT)
    return _shards(
        path,
        metadata,
        chosen,
        parts,
        first_is_empty=split.no_tensor_first,
        count_is_last=True,
        byte_order=byte_order,
        bounds=bounds,
    )


def split_as_source(
    path: Path, metadata: Metadata, chosen: Sequence[TensorChoice], part_of: Mapping[str, int]
) -> tuple[Shard, ...]:
    """The parts that llama-quantize makes with --keep-split.

    Args:
        path: What the file would be called if it were whole.
        metadata: The keys of the first part.
        chosen: The tensors of all parts, in order.
        part_of: The source's part of each tensor, by its name there.

    Source: llama-quant.cpp of llama.cpp.
    """
    parts = [part_of[tensor.origin] for tensor in chosen]
    if max(parts, default=0) == 0:
        return whole_file(part_path(path, 0, 1), metadata, chosen)
    return _shards(path, metadata, chosen, parts)


def some_parts_of_source(
    path: Path,
    metadata: Metadata,
    chosen: Sequence[TensorChoice],
    part_of: Mapping[str, int],
    whole: SplitSize,
    wanted: Collection[int],
) -> tuple[Shard, ...]:
    """Those parts of `split_as_source` that are `wanted`, of a source with `whole` parts and tensors."""
    parts = [part_of[tensor.origin] for tensor in chosen]
    return _shards(path, metadata, chosen, parts, whole=whole, wanted=wanted)


def _shards(
    path: Path,
    metadata: Metadata,
    chosen: Sequence[TensorChoice],
    parts: Sequence[int],
    *,
    first_is_empty: bool = False,
    count_is_last: bool = False,
    byte_order: ByteOrder = "<",
    bounds: Bounds = GGML,
    whole: SplitSize | None = None,
    wanted: Collection[int] | None = None,
) -> tuple[Shard, ...]:
    """The shards of the tensors in `parts`. Shards after the first have only the keys of the split."""
    n_parts = whole.parts if whole else first_is_empty + max(parts, default=0) + 1
    n_tensors = whole.tensors if whole else len(chosen)
    members: list[list[TensorChoice]] = [[] for _ in range(n_parts)]
    for tensor, part in zip(chosen, parts, strict=True):
        members[first_is_empty + part].append(tensor)
    total = len(members)
    if total > _MOST_PARTS:
        raise UsageError(f"that would be {total:,} parts, and GGUF counts to {_MOST_PARTS:,}", hint="make them larger")
    shards: list[Shard] = []
    for number, tensors in enumerate(members):
        if wanted is not None and number not in wanted:
            continue
        keys = part_keys(number, total, n_tensors)
        if count_is_last:
            keys[SPLIT_COUNT] = keys.pop(SPLIT_COUNT)
        of_model = metadata if number == 0 else {}
        name = part_path(path, number, total)
        shards += whole_file(name, {**of_model, **keys}, tensors, byte_order=byte_order, bounds=bounds)
    return tuple(shards)
