"""Files that are made of the tensors of other GGUF files, which stay as they are to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gguf_forge.engine.tasks import RowSource, Shard
from gguf_forge.errors import UnsupportedError
from gguf_forge.expr import Stored
from gguf_forge.file_plan import FilePlan
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.opened import GgufFile
from gguf_forge.gguf_file.reader import GgufTensor
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.recipe.file_types import COPY
from gguf_forge.recipe.tensor_rules import trimmed


def check_one_byte_order(gguf: GgufFile) -> None:
    """Raise UnsupportedError if the files of a split differ in their byte order."""
    for path, shard in zip(gguf.paths, gguf.shards, strict=True):
        if any(tensor.byte_order != gguf.byte_order for tensor in shard):
            raise UnsupportedError(
                f"the byte order is not that of {gguf.paths[0].name}",
                file=path,
                hint="convert all files of the split to one byte order",
            )


def copying_shard(path: Path, metadata: Metadata, tensors: Sequence[GgufTensor], gguf: GgufFile) -> Shard:
    """A file with these keys and with tensors of `gguf`, in its byte order and as ggml describes them."""
    infos = [replace(tensor.info, shape=trimmed(tensor.shape)) for tensor in tensors]
    layout = lay_out(metadata, infos, byte_order=gguf.byte_order)
    return Shard(path, layout, tuple(map(_as_it_is, tensors)))


def _as_it_is(tensor: GgufTensor) -> RowSource:
    stored = Stored(tensor.name, tensor.source, tensor.offset, tensor.shape[::-1], tensor.type)
    return RowSource(stored, tensor.type)


def copying_plan(shards: Sequence[Shard], gguf: GgufFile) -> FilePlan:
    """The plan of a file or split that is made of the tensors of `gguf`."""
    return FilePlan(
        type=COPY,
        shards=tuple(shards),
        fallbacks=(),
        warnings=(),
        source_bytes=sum(tensor.nbytes for tensor in gguf.tensors),
        inputs=gguf.paths,
    )
