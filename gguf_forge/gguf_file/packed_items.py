"""The items of a metadata array in the bytes of a file. They are decoded one by one, and written back bit for bit.

A vocabulary has 250,000 strings. Held like this, it takes the memory of its bytes and of one offset for each string,
and a string is decoded only when it is asked for. Both classes are sequences that equal tuples with the same items.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from gguf_forge.gguf_file.values import ByteOrder, Value, ValueType

Item = TypeVar("Item")

LENGTH_BYTES = 8
# Numbers that become objects at a time.
_PIECE = 1 << 16


class PackedItems(Sequence[Item], Generic[Item]):
    """A read-only sequence that knows its own encoding."""

    @abstractmethod
    def encoded(self, byte_order: ByteOrder) -> bytes:
        """The items as a GGUF file of this byte order holds them."""

    @abstractmethod
    def _item(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        positions = range(len(self))[index]
        return self._item(positions) if isinstance(positions, int) else tuple(map(self._item, positions))

    def __iter__(self) -> Iterator[Item]:
        return map(self._item, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (PackedItems, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        more = ", ..." if len(self) > 3 else ""
        return f"<{len(self)} items: {', '.join(map(repr, self[:3]))}{more}>"


class PackedNumbers(PackedItems[Any]):
    """Integers, floats or booleans.

    Args:
        array: One-dimensional, of the stored type and byte order; read-only.

    Example:
        >>> PackedNumbers(np.array([1, 2], ">u2")).encoded("<")
        b'\\x01\\x00\\x02\\x00'
    """

    def __init__(self, array: NDArray[Any]):
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def _item(self, index: int) -> Any:
        return self._array[index].item()

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self._array), _PIECE):
            yield from self._array[start : start + _PIECE].tolist()

    def encoded(self, byte_order: ByteOrder) -> bytes:
        return self._array.astype(self._array.dtype.newbyteorder(byte_order), copy=False).tobytes()


class PackedStrings(PackedItems["str | bytes"]):
    """Strings: str where they are valid UTF-8, bytes where they are not.

    Args:
        raw: The strings, each behind its length in `LENGTH_BYTES` bytes.
        starts: The byte of `raw` at which each length begins, and after them the size of `raw`.
        byte_order: Of the lengths.
    """

    def __init__(self, raw: NDArray[np.uint8], starts: NDArray[np.int64], byte_order: ByteOrder):
        self._raw = raw
        self._starts = starts
        self._byte_order = byte_order

    def __len__(self) -> int:
        return len(self._starts) - 1

    def _item(self, index: int) -> str | bytes:
        return text_or_bytes(self._raw[self._starts[index] + LENGTH_BYTES : self._starts[index + 1]].tobytes())

    def __iter__(self) -> Iterator[str | bytes]:
        raw, starts = self._raw.data, self._starts.tolist()
        for start, stop in pairwise(starts):
            yield text_or_bytes(bytes(raw[start + LENGTH_BYTES : stop]))

    @property
    def has_nul(self) -> bool:
        """Whether any string has a NUL in it. The bytes are searched as a whole, not string by string."""
        in_lengths = np.count_nonzero(self._lengths("<").view(np.uint8) == 0)
        return bool(np.count_nonzero(self._raw == 0) > in_lengths)

    def encoded(self, byte_order: ByteOrder) -> bytes:
        if byte_order == self._byte_order:
            return self._raw.tobytes()
        swapped = self._raw.copy()
        lengths = self._lengths(byte_order).view(np.uint8).reshape(-1, LENGTH_BYTES)
        swapped[self._starts[:-1, None] + np.arange(LENGTH_BYTES)] = lengths
        return bytes(swapped.tobytes())

    def _lengths(self, byte_order: ByteOrder) -> NDArray[Any]:
        return (np.diff(self._starts) - LENGTH_BYTES).astype(f"{byte_order}u8")


def text_or_bytes(raw: bytes) -> str | bytes:
    """`raw` as text if it is valid UTF-8, else as it is."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def as_c_strings(value: Value) -> Value:
    r"""The value as C code copies it: a string ends at its first NUL.

    Example:
        >>> as_c_strings(Value(ValueType.STRING, "a\0b")).data
        'a'
    """
    if value.type is ValueType.STRING:
        return replace(value, data=_before_nul(value.data))
    if isinstance(value.data, PackedStrings) and not value.data.has_nul:
        return value
    if value.type is ValueType.ARRAY and value.element is ValueType.STRING:
        return replace(value, data=tuple(_before_nul(item) for item in value.data))
    return value


def _before_nul(text: str | bytes) -> str | bytes:
    return text.split(b"\0", 1)[0] if isinstance(text, bytes) else text.split("\0", 1)[0]
