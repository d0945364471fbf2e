"""Checks a GGUF file by itself: it finds blocks with invalid scales, and bytes other than zero in the padding.

Structure, offsets and overlaps are checked when a file is opened: `gguf_file/reader.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gguf_forge.engine.threads import Progress
from gguf_forge.errors import printable
from gguf_forge.gguf_file.header import alignment_of, encode_header, padded
from gguf_forge.gguf_file.opened import GgufFile
from gguf_forge.gguf_file.reader import read_header
from gguf_forge.gguf_file.rules import WIDEST
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.toolbox.inspect.rows_of import in_order, row_ranges, with_short_rows
from gguf_forge.types.foreign_type import ForeignType
from gguf_forge.types.validity import invalid_blocks

_RANGE_VALUES = 1 << 20


@dataclass(frozen=True)
class Problem:
    """Something that is wrong in a file by itself.

    Attributes:
        kind: "invalid blocks", "padding", or "size".
        what: A sentence.
        file: The name of the file, of a split one.
        tensor: The tensor it is in, if it is in one.
        count: How many blocks or bytes.
    """

    kind: str
    what: str
    file: str
    tensor: str | None
    count: int


def problems_of(
    gguf: GgufFile, *, threads: int | None = None, progress: Progress = lambda n_bytes: None
) -> tuple[Problem, ...]:
    """All that is wrong in a file by itself: each tensor is read once, unless its type is not known.

    Args:
        gguf: The file, opened: its structure is sound, then.
        threads: Defaults to the processors this process may use.
        progress: Told the bytes of tensors as they are read.

    Raises:
        UnsupportedError: packed blocks of a big-endian file whose byte order nobody has settled.
    """
    return (*_padding(gguf), *_invalid(gguf, threads, progress))


class _Rows(NamedTuple):
    tensor: GgufTensor
    expr: TensorExpr
    start: int
    stop: int


def _invalid(gguf: GgufFile, threads: int | None, progress: Progress) -> Iterator[Problem]:
    ranges = (
        _Rows(tensor, expr, *rows)
        for tensor in gguf.tensors
        if not isinstance(tensor.type, ForeignType)
        for expr in [with_short_rows(tensor.expression())]
        for rows in row_ranges(expr, values=_RANGE_VALUES)
    )
    counts: Counter[str] = Counter()
    firsts: dict[str, tuple[GgufTensor, int]] = {}
    for tensor, nbytes, count, first in in_order(_count_invalid, ranges, threads=threads):
        progress(nbytes)
        if count:
            counts[tensor.name] += count
            firsts.setdefault(tensor.name, (tensor, first))
    for name, (tensor, first) in firsts.items():
        row, block = divmod(first, tensor.shape[0] // tensor.type.block_elements)
        if tensor.type.block_elements == 1:
            what = f"{counts[name]} values are infinite or not a number, the first in row {row}, column {block}"
        else:
            what = f"{counts[name]} blocks have an infinite or undefined scale, the first is block {block} of row {row}"
        yield Problem("invalid blocks", what, tensor.source.path.name, printable(name), counts[name])


def _count_invalid(rows: _Rows) -> tuple[GgufTensor, int, int, int]:
    """The tensor, the bytes read, how many of its blocks are invalid, and the number of the first."""
    kind = rows.tensor.type
    data = np.ascontiguousarray(rows.expr.rows(rows.start, rows.stop)).view(np.uint8)
    bad = invalid_blocks(data, kind)
    if bad is None or not bad.any():
        return rows.tensor, data.nbytes, 0, 0
    first = rows.start * data.shape[1] // kind.block_bytes + int(np.argmax(bad))
    return rows.tensor, data.nbytes, int(np.count_nonzero(bad)), first


def _padding(gguf: GgufFile) -> Iterator[Problem]:
    """Bytes between tensors that aren't zero, and bytes after the last one."""
    for path, tensors in zip(gguf.paths, gguf.shards, strict=True):
        with SourceFile(path) as file:
            header = read_header(file, lenient=True)
            alignment = alignment_of(header.metadata)
            infos = [tensor.info for tensor in tensors]
            offsets = [tensor.offset - header.data_offset for tensor in tensors]
            used = len(encode_header(header.metadata, infos, offsets, 1, header.byte_order, WIDEST))
            gaps = [(used, header.data_offset, "the header")]
            gaps += [
                (end, padded(end, alignment), printable(tensor.name))
                for tensor in tensors
                for end in [tensor.offset + tensor.nbytes]
            ]
            for start, stop, after in gaps:
                data = file.read(min(start, file.size), max(0, min(stop, file.size) - start))
                if data.any():
                    count = int(np.count_nonzero(data))
                    yield Problem("padding", f"{count} bytes after {after} are not zero", path.name, None, count)
            end = gaps[-1][1]
            if tensors and file.size != end:
                difference = file.size - end
                what = f"{difference} bytes after the last tensor" if difference > 0 else "the last padding is missing"
                yield Problem("size", what, path.name, None, abs(difference))
