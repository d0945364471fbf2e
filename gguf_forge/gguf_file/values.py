"""Typed metadata values of a GGUF file. Source: ggml's docs/gguf.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, TypeAlias

# "<" little-endian, ">" big-endian.
ByteOrder: TypeAlias = Literal["<", ">"]


class ValueType(IntEnum):
    """The type of a metadata value, and its number in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


@dataclass(frozen=True)
class Value:
    """One metadata value. `data` is an int, float, bool, str or bytes; for an ARRAY a tuple of those.

    Strings may be str (written as UTF-8) or bytes (written as they are: tokens need not be valid UTF-8). Arrays that
    were read from a file are `PackedItems`, an array of arrays (which ggml does not load) is a tuple of `Value`s, and a
    FLOAT32 that is no number is an np.float32, which keeps its bits.
    """

    type: ValueType
    data: Any
    element: ValueType | None = None


# Keys in file order. Setting an existing key keeps its place, as the reference's writer does.
Metadata: TypeAlias = dict[str, Value]


def u32(number: int) -> Value:
    return Value(ValueType.UINT32, int(number))


def f32(number: float) -> Value:
    return Value(ValueType.FLOAT32, float(number))


def boolean(flag: bool) -> Value:
    return Value(ValueType.BOOL, bool(flag))


def string(text: str | bytes) -> Value:
    return Value(ValueType.STRING, text)


def array(element: ValueType, items: Iterable[Any]) -> Value:
    return Value(ValueType.ARRAY, tuple(items), element)
