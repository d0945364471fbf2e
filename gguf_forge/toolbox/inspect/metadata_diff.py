"""Which keys of two GGUF files differ, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gguf_forge.gguf_file.header import encode_header
from gguf_forge.gguf_file.rules import WIDEST
from gguf_forge.gguf_file.split import SPLIT_KEYS
from gguf_forge.gguf_file.values import Metadata, Value, ValueType

Kind = Literal["missing", "extra", "value", "type", "order"]


@dataclass(frozen=True)
class KeyDifference:
    """A key that differs.

    Attributes:
        key: Its name.
        kind: "missing" or "extra" (in the second file), "value", "type", or "order": another key stands at the place
            of this one, the first of which that is true.
        expected: What the first file has; None if it has nothing.
        found: What the second file has; None if it has nothing.
        at: Of arrays of one length, the first item that differs.
    """

    key: str
    kind: Kind
    expected: Value | None = None
    found: Value | None = None
    at: int | None = None


def metadata_differences(expected: Metadata, found: Metadata) -> tuple[KeyDifference, ...]:
    """The keys that differ, those of a split apart.

    Values are compared bit by bit.

    Args:
        expected: Of the first file.
        found: Of the second file.

    Example:
        >>> from gguf_forge.gguf_file.values import u32
        >>> [(each.key, each.kind) for each in metadata_differences({"a": u32(1)}, {"a": u32(2), "b": u32(3)})]
        [('a', 'value'), ('b', 'extra')]
    """
    first = {key: value for key, value in expected.items() if key not in SPLIT_KEYS}
    second = {key: value for key, value in found.items() if key not in SPLIT_KEYS}
    return (*_differences(first, second), *_order(first, second))


def _differences(first: Mapping[str, Value], second: Mapping[str, Value]) -> Iterator[KeyDifference]:
    for key, value in first.items():
        other = second.get(key)
        if other is None:
            yield KeyDifference(key, "missing", value)
        elif (value.type, value.element) != (other.type, other.element):
            yield KeyDifference(key, "type", value, other)
        elif _encoded(value) != _encoded(other):
            yield KeyDifference(key, "value", value, other, _first_item(value, other))
    for key, value in second.items():
        if key not in first:
            yield KeyDifference(key, "extra", None, value)


def _order(first: Mapping[str, Value], second: Mapping[str, Value]) -> Iterator[KeyDifference]:
    wanted, there = [key for key in first if key in second], [key for key in second if key in first]
    moved = next((key for key, other in zip(wanted, there, strict=True) if key != other), None)
    if moved is not None:
        yield KeyDifference(moved, "order")


def _encoded(value: Value) -> bytes:
    return encode_header({"": value}, (), (), 1, bounds=WIDEST)


def _first_item(value: Value, other: Value) -> int | None:
    """The first item of two arrays that differs; None if they are none, of different lengths, or hold arrays."""
    if value.element in (None, ValueType.ARRAY) or len(value.data) != len(other.data):
        return None
    kind: Any = value.element
    pairs = enumerate(zip(value.data, other.data, strict=True))
    return next(
        (at for at, (a, b) in pairs if a is not b and _encoded(Value(kind, a)) != _encoded(Value(kind, b))), None
    )
