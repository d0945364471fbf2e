"""The header of a GGUF v3 file: counts, metadata, tensor infos.

Source: ggml's docs/gguf.md and ggml/src/gguf.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain

import numpy as np

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.packed_items import PackedItems
from gguf_forge.gguf_file.rules import GGML, Bounds
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ByteOrder, Metadata, Value, ValueType

MAGIC = b"GGUF"
VERSION = 3
DEFAULT_ALIGNMENT = 32
# Headers are padded in memory, so a huge alignment would cost as much. Files have 32.
MAX_ALIGNMENT = 1 << 20

FORMATS = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


def padded(size: int, alignment: int) -> int:
    """`size` rounded up to a multiple of `alignment`."""
    return -(-size // alignment) * alignment


def alignment_of(metadata: Metadata) -> int:
    """The bytes that tensor data is aligned to.

    Raises:
        InputError: `general.alignment` is no UINT32, or not a power of two from 8 to 1,048,576.
    """
    value = metadata.get("general.alignment")
    if value is None:
        return DEFAULT_ALIGNMENT
    alignment = value.data
    if value.type is not ValueType.UINT32 or not _is_alignment(alignment):
        raise InputError(
            f"general.alignment is {alignment!r} ({value.type.name})",
            hint=f"it must be a UINT32 that is a power of two from 8 to {MAX_ALIGNMENT:,}",
        )
    return int(alignment)


def _is_alignment(number: int) -> bool:
    return 8 <= number <= MAX_ALIGNMENT and number & (number - 1) == 0


def encode_header(
    metadata: Metadata,
    tensors: Sequence[TensorInfo],
    offsets: Sequence[int],
    alignment: int = DEFAULT_ALIGNMENT,
    byte_order: ByteOrder = "<",
    bounds: Bounds = GGML,
) -> bytes:
    """Everything that comes before the tensor data, zero-padded to a multiple of `alignment` bytes.

    Args:
        metadata: Keys and values, written in their order.
        tensors: Tensor infos, written in their order.
        offsets: For each tensor, the bytes between the end of the header and its data.
        alignment: 1 leaves the header unpadded.
        byte_order: "<" little-endian, ">" big-endian.
        bounds: `WIDEST` for a copy of a file that ggml does not load.

    Raises:
        InputError: a value that its type cannot hold, text that is not valid Unicode, a tensor name or
            shape beyond the bounds.

    Example:
        >>> len(encode_header({}, (), ()))
        32
    """
    parts = [MAGIC, struct.pack(f"{byte_order}IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += _strings([key], key, byte_order)
        parts += [struct.pack(f"{byte_order}I", value.type), *_value(key, value, byte_order, bounds.nesting)]
    if len({info.name for info in tensors}) != len(tensors):
        raise InputError("two tensors have the same name", hint="check the tensor names of the checkpoint")
    for info, offset in zip(tensors, offsets, strict=True):
        parts += _tensor_info(info, offset, byte_order, bounds)
    header = b"".join(parts)
    return header.ljust(padded(len(header), alignment), b"\0")


def _value(key: str, value: Value, order: ByteOrder, nesting: int) -> list[bytes]:
    """What follows the type of a value. `nesting` counts the levels of arrays in arrays that are left."""
    if isinstance(value.data, np.float32):  # a NaN that must keep all its bits
        return [np.asarray(value.data).astype(f"{order}f4").tobytes()]
    if value.type is not ValueType.ARRAY:
        return _items(key, value.type, (value.data,), order)
    if value.element is None or (value.element is ValueType.ARRAY and nesting == 0):
        raise InputError(f"metadata {key!r} is an array of arrays, which GGUF readers do not take")
    head = struct.pack(f"{order}IQ", value.element, len(value.data))
    if value.element is ValueType.ARRAY:
        return [head, *chain.from_iterable(_value(key, item, order, nesting - 1) for item in value.data)]
    return [head, *_items(key, value.element, value.data, order)]


def _items(key: str, kind: ValueType, items: Sequence[object], order: ByteOrder) -> list[bytes]:
    if isinstance(items, PackedItems):
        return [items.encoded(order)]
    if kind is ValueType.STRING:
        return _strings(items, key, order)
    try:
        return [struct.pack(f"{order}{len(items)}{FORMATS[kind]}", *items)]
    except (struct.error, OverflowError) as error:
        raise InputError(f"metadata {key!r} does not fit {kind.name}: {error}") from error


def _strings(items: Sequence[object], key: str, order: ByteOrder) -> list[bytes]:
    try:
        # Each step is one pass in C, because a vocabulary and its merges have 400,000 strings.
        encoded = [item.encode() if isinstance(item, str) else item for item in items]
        lengths = map(struct.Struct(f"{order}Q").pack, map(len, encoded))  # type: ignore[arg-type]
        return list(chain.from_iterable(zip(lengths, encoded, strict=True)))  # type: ignore[arg-type]
    except UnicodeEncodeError as error:
        raise InputError(
            f"metadata {key!r} holds text that is not valid Unicode: {error.object!r:.80}",
            hint="replace the lone surrogates in it",
        ) from error


def _tensor_info(info: TensorInfo, offset: int, order: ByteOrder, bounds: Bounds) -> list[bytes]:
    try:
        name = info.name.encode()
    except UnicodeEncodeError as error:
        raise InputError("tensor name is not valid Unicode", tensor=ascii(info.name)) from error
    if not 0 < len(name) <= bounds.name_bytes:
        raise InputError(f"tensor name has {len(name)} bytes; ggml loads 1 to {GGML.name_bytes}", tensor=info.name)
    n_dims = len(info.shape)
    if n_dims > bounds.dims:
        raise InputError(f"shape {info.shape} has {n_dims} dimensions; ggml has {GGML.dims}", tensor=info.name)
    try:
        fixed = struct.pack(f"{order}I{n_dims}QIQ", n_dims, *info.shape, info.type.id, offset)
    except struct.error as error:
        raise InputError(f"shape {info.shape} cannot be written: {error}", tensor=info.name) from error
    return [struct.pack(f"{order}Q", len(name)), name, fixed]
