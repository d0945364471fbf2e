"""Files that are made of the tensors of other GGUF files. The bytes of the tensors are copied unchanged.

The source may be a file that llama.cpp does not load, and lack some of its tensors. What stays wrong is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import gcd

from gguf_forge.engine.batches import RowSource, Shard
from gguf_forge.errors import UnsupportedError
from gguf_forge.gguf_file.layout import PlacedTensor
from gguf_forge.gguf_file.opened import GgufFile
from gguf_forge.gguf_file.rules import COPYABLE, GGML, INCOMPLETE, WIDEST, Bounds, FormatRule, refuse
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.planning.file_plan import FilePlan, TensorChoice, refuse_part_name
from gguf_forge.recipe.file_types import COPY
from gguf_forge.recipe.tensor_rules import trimmed
from gguf_forge.tensors.stored import Stored
from gguf_forge.types.foreign_type import ForeignType
from gguf_forge.types.tensor_type import I8
from gguf_forge.wording import log_of

log = log_of(__name__)

_ROW_BYTES = 4096  # of a tensor of unknown type, at most


def check_one_byte_order(gguf: GgufFile) -> None:
    """Raise UnsupportedError if the files of a split differ in their byte order."""
    for path, shard in zip(gguf.paths, gguf.shards, strict=True):
        if any(tensor.byte_order != gguf.byte_order for tensor in shard):
            raise UnsupportedError(
                f"the byte order is not that of {gguf.paths[0].name}",
                file=path,
                hint="convert all files of the split to one byte order",
            )


def tensors_to_copy(gguf: GgufFile, *, partial: bool) -> list[GgufTensor]:
    """The tensors of a file that was opened leniently; with `partial` those that are there.

    Raises:
        ForgeError: the file is not complete, without `partial`, or cannot be copied as it is.
    """
    refuse(gguf.broken, but=(*COPYABLE, *INCOMPLETE, FormatRule.SPLIT) if partial else COPYABLE)
    for broken in gguf.broken:
        log.warning("%s", broken.everywhere())
    return [tensor for tensor in gguf.tensors if tensor.is_whole]


def bounds_of(gguf: GgufFile) -> Bounds:
    """What the header of a copy may hold."""
    return WIDEST if gguf.broken else GGML


def as_they_are(tensors: Iterable[GgufTensor]) -> list[TensorChoice]:
    """The tensors of a file for the plan of a new file, with shapes as ggml writes them. Their values may be anything,
    so that a file can be repaired in several steps."""
    return [
        TensorChoice(replace(tensor.info, shape=trimmed(tensor.shape)), _stored(tensor), tensor.name)
        for tensor in tensors
    ]


def _stored(tensor: GgufTensor) -> RowSource:
    info = _in_known_rows(tensor.info)
    expr = Stored(tensor.name, tensor.source, tensor.offset, info.shape[::-1], info.type)
    return RowSource(expr, info.type, is_checked=False)


def _in_known_rows(info: TensorInfo) -> TensorInfo:
    """A tensor of unknown type as rows of bytes."""
    if not isinstance(info.type, ForeignType):
        return info
    width = gcd(info.nbytes, _ROW_BYTES) or 1
    return TensorInfo(info.name, (width, info.nbytes // width), I8)


def copying_plan(shards: tuple[Shard, ...], gguf: GgufFile) -> FilePlan:
    """The plan of a file or split that is made of the tensors of `gguf`.

    Raises:
        UsageError: a whole file would have the name of a part of a split.
    """
    plan = FilePlan(
        file_type=COPY,
        metadata=gguf.typed_metadata,
        shards=tuple(map(_with_known_rows, shards)),
        fallbacks=(),
        warnings=(),
        source_bytes=sum(tensor.nbytes for tensor in gguf.tensors),
        inputs=gguf.pieces,
    )
    refuse_part_name(plan.path, plan.shards[0].layout.header)
    return plan


def _with_known_rows(shard: Shard) -> Shard:
    """The shard as it is written: its header has the unknown types already."""
    placed = tuple(PlacedTensor(_in_known_rows(tensor.info), tensor.offset) for tensor in shard.layout.tensors)
    return replace(shard, layout=replace(shard.layout, tensors=placed))
