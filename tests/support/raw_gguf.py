"""GGUF files field by field, as lawful or as hostile as a test wants them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gguf_forge.gguf_file.cursor import Cursor
from gguf_forge.gguf_file.header import encode_header
from gguf_forge.gguf_file.opened import GgufFile
from gguf_forge.gguf_file.packed_items import PackedStrings
from gguf_forge.gguf_file.values import ValueType

U8, U32, F32_VALUE, BOOL, STRING, ARRAY = (
    ValueType.UINT8,
    ValueType.UINT32,
    ValueType.FLOAT32,
    ValueType.BOOL,
    ValueType.STRING,
    ValueType.ARRAY,
)


@dataclass(frozen=True)
class RawTensor:
    """A tensor info; all of it is written as it is."""

    name: bytes = b"a.weight"
    shape: tuple[int, ...] = (32,)
    type_id: int = 0
    offset: int = 0
    n_dims: int | None = None


def text(raw: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}Q", len(raw)) + raw


def key(name: bytes, kind: int, payload: bytes, order: str = "<") -> bytes:
    return text(name, order) + struct.pack(f"{order}I", kind) + payload


def u32_key(name: bytes, number: int, order: str = "<") -> bytes:
    return key(name, U32, struct.pack(f"{order}I", number), order)


def raw_gguf(
    keys: Sequence[bytes] = (),
    tensors: Sequence[RawTensor] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    order: str = "<",
    n_keys: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    """The file with these parts; the counts tell the truth unless given."""
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    parts = [magic, struct.pack(f"{order}IQQ", version, *counts), *keys]
    for tensor in tensors:
        n_dims = len(tensor.shape) if tensor.n_dims is None else tensor.n_dims
        parts.append(text(tensor.name, order))
        parts.append(struct.pack(f"{order}I{len(tensor.shape)}Q", n_dims, *tensor.shape))
        parts.append(struct.pack(f"{order}IQ", tensor.type_id, tensor.offset))
    header = b"".join(parts)
    return header + bytes(-len(header) % alignment if tensors else 0) + data


def write(folder: Path, raw: bytes, name: str = "a.gguf") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def header_again(gguf: GgufFile) -> bytes:
    """The header of an opened file, encoded anew, without padding."""
    infos = [tensor.info for tensor in gguf.tensors]
    first = gguf.tensors[0].offset if gguf.tensors else 0
    offsets = [tensor.offset - first for tensor in gguf.tensors]
    return encode_header(gguf.typed_metadata, infos, offsets, 1, gguf.byte_order)


@contextmanager
def recorded_fields() -> Iterator[list[tuple[int, int]]]:
    """Within the block: (offset, size) of every number of every header that is read."""
    found: list[tuple[int, int]] = []
    numbers, strings = Cursor.numbers, Cursor.strings

    def recording_numbers(cursor: Cursor, layout: str, what: str) -> tuple[object, ...]:
        at = cursor.at
        for size in (struct.calcsize(cursor.byte_order + part) for part in _parts(layout)):
            found.append((at, size))
            at += size
        return numbers(cursor, layout, what)

    def recording_strings(cursor: Cursor, count: int, what: str) -> PackedStrings:
        first = cursor.at
        taken = strings(cursor, count, what)
        found.extend((first + int(start), 8) for start in taken._starts[:-1][:20])
        return taken

    Cursor.numbers, Cursor.strings = recording_numbers, recording_strings  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        Cursor.numbers, Cursor.strings = numbers, strings  # type: ignore[method-assign]


def _parts(layout: str) -> Iterator[str]:
    """One letter for each number: "2QI" is Q, Q, I."""
    count = ""
    for char in layout:
        if char.isdigit():
            count += char
        else:
            yield from char * int(count or 1)
            count = ""
