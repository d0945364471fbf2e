"""Files that are made of the tensors of other GGUF files. The bytes of the tensors are copied unchanged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gguf_forge.engine.batches import RowSource, Shard
from gguf_forge.errors import UnsupportedError
from gguf_forge.gguf_file.opened import GgufFile
from gguf_forge.gguf_file.reader import GgufTensor
from gguf_forge.planning.file_plan import FilePlan, TensorChoice
from gguf_forge.recipe.file_types import COPY
from gguf_forge.recipe.tensor_rules import trimmed
from gguf_forge.tensors.stored import Stored


def check_one_byte_order(gguf: GgufFile) -> None:
    """Raise UnsupportedError if the files of a split differ in their byte order."""
    for path, shard in zip(gguf.paths, gguf.shards, strict=True):
        if any(tensor.byte_order != gguf.byte_order for tensor in shard):
            raise UnsupportedError(
                f"the byte order is not that of {gguf.paths[0].name}",
                file=path,
                hint="convert all files of the split to one byte order",
            )


def as_they_are(tensors: Iterable[GgufTensor]) -> list[TensorChoice]:
    """The tensors of a file for the plan of a new file, with shapes as ggml writes them. Their values may be anything,
    so that a file can be repaired in several steps."""
    return [
        TensorChoice(replace(tensor.info, shape=trimmed(tensor.shape)), _stored(tensor), tensor.name)
        for tensor in tensors
    ]


def _stored(tensor: GgufTensor) -> RowSource:
    expr = Stored(tensor.name, tensor.source, tensor.offset, tensor.shape[::-1], tensor.type)
    return RowSource(expr, tensor.type, is_checked=False)


def copying_plan(shards: tuple[Shard, ...], gguf: GgufFile) -> FilePlan:
    """The plan of a file or split that is made of the tensors of `gguf`."""
    return FilePlan(
        file_type=COPY,
        metadata=gguf.typed_metadata,
        shards=shards,
        fallbacks=(),
        warnings=(),
        source_bytes=sum(tensor.nbytes for tensor in gguf.tensors),
        inputs=gguf.paths,
    )
