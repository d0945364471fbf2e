"""Splits of a GGUF file: the names and keys of parts, and the part of each tensor. Source: llama-gguf-split."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gguf_forge.gguf_file.header import DEFAULT_ALIGNMENT, padded
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, Value, ValueType

SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS = SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")

_PART = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)


class PartName(NamedTuple):
    """What the name of a part of a split says; `number` counts from 0."""

    stem: str
    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.stem}-{self.number + 1:05}-of-{self.total:05}.gguf"

    @classmethod
    def read(cls, file_name: str) -> PartName | None:
        """Takes a file name apart; None if it is not the name of a part.

        Example:
            >>> PartName.read("m-00001-of-00003.gguf")
            PartName(stem='m', number=0, total=3)
        """
        found = _PART.fullmatch(file_name)
        return cls(found[1], int(found[2]) - 1, int(found[3])) if found else None


def part_path(file: Path, number: int, count: int) -> Path:
    """The path of part `number` (from 0) of a split whose unsplit file would be `file`.

    If `file` has the name of a part itself, its beginning counts.

    Example:
        >>> part_path(Path("m.gguf"), 0, 3).name, part_path(Path("m-00001-of-00002.gguf"), 0, 3).name
        ('m-00001-of-00003.gguf', 'm-00001-of-00003.gguf')
    """
    name = PartName.read(file.name)
    stem = name.stem if name else file.name.removesuffix(".gguf")
    return file.with_name(str(PartName(stem, number, count)))


def is_header_of_part(header: bytes, total: int) -> bool:
    """Whether an encoded header says that its file is one of `total` parts."""
    return any(
        SPLIT_COUNT.encode() + struct.pack(f"{order}IH", ValueType.UINT16, total) in header
        for order in "<>"
        if total < 1 << 16
    )


def part_keys(number: int, count: int, n_tensors: int) -> Metadata:
    """The keys that every part has. In the first part, the keys of the model come before them."""
    return {
        SPLIT_NO: Value(ValueType.UINT16, number),
        SPLIT_COUNT: Value(ValueType.UINT16, count),
        SPLIT_TENSORS: Value(ValueType.INT32, n_tensors),
    }


def parts_within(
    infos: Iterable[TensorInfo],
    max_size: int | None,
    max_tensors: int | None,
    *,
    alignment: int = DEFAULT_ALIGNMENT,
) -> list[int]:
    """The part that each tensor goes to, in their order.

    Args:
        infos: The tensors of the file.
        max_size: The most bytes of tensors in a part, unless one tensor is larger; None for no bound.
        max_tensors: The most tensors in a part; None for no bound.
        alignment: The bytes of each tensor are rounded up to a multiple of this before they are counted.

    Example:
        >>> from gguf_forge.types.tensor_type import F32
        >>> parts_within([TensorInfo(name, (8,), F32) for name in "abcde"], 64, None)
        [0, 0, 1, 1, 2]
    """
    parts: list[int] = []
    part = size = count = 0
    for info in infos:
        nbytes = padded(info.nbytes, alignment)
        is_full = (max_size is not None and size + nbytes > max_size) or count == max_tensors
        if is_full and count:
            part, size, count = part + 1, 0, 0
        parts.append(part)
        size, count = size + nbytes, count + 1
    return parts
