"""Which keys of two GGUF files differ, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from gguf_forge.errors import printable
from gguf_forge.gguf_file.header import encode_header
from gguf_forge.gguf_file.split import SPLIT_KEYS
from gguf_forge.gguf_file.values import Metadata, Value, ValueType

Kind = Literal["missing", "extra", "value", "type", "order"]


@dataclass(frozen=True)
class KeyDifference:
    """A key that differs.

    Attributes:
        key: Its name.
        kind: "missing" or "extra" (in the second file), "value", "type", or "order" (the first key out of its place).
        expected: What the first file has, short enough to read; None if it has nothing.
        found: What the second file has.
    """

    key: str
    kind: Kind
    expected: str | None = None
    found: str | None = None


def metadata_differences(expected: Metadata, found: Metadata) -> tuple[KeyDifference, ...]:
    """The keys that differ, those of a split apart.

    Values are compared bit by bit.

    Args:
        expected: Of the first file.
        found: Of the second file.

    Example:
        >>> from gguf_forge.gguf_file.values import u32
        >>> metadata_differences({"a": u32(1)}, {"a": u32(2)})
        (KeyDifference(key='a', kind='value', expected='1', found='2'),)
    """
    first = {key: value for key, value in expected.items() if key not in SPLIT_KEYS}
    second = {key: value for key, value in found.items() if key not in SPLIT_KEYS}
    return (*_differences(first, second), *_order(first, second))


def _differences(first: Mapping[str, Value], second: Mapping[str, Value]) -> Iterator[KeyDifference]:
    for key, value in first.items():
        other = second.get(key)
        if other is None:
            yield KeyDifference(key, "missing", text_of(value))
        elif (value.type, value.element) != (other.type, other.element):
            yield KeyDifference(key, "type", _type_of(value), _type_of(other))
        elif _encoded(key, value) != _encoded(key, other):
            yield KeyDifference(key, "value", *_values(value, other))
    for key, value in second.items():
        if key not in first:
            yield KeyDifference(key, "extra", None, text_of(value))


def _order(first: Mapping[str, Value], second: Mapping[str, Value]) -> Iterator[KeyDifference]:
    common = [key for key in first if key in second]
    for wanted, there in zip(common, (key for key in second if key in first), strict=True):
        if wanted != there:
            yield KeyDifference(wanted, "order", wanted, there)
            return


def _encoded(key: str, value: Value) -> bytes:
    return encode_header({key: value}, (), (), 1)


def _type_of(value: Value) -> str:
    return f"{value.type.name} of {value.element.name}" if value.element is not None else value.type.name


def _values(value: Value, other: Value) -> tuple[str, str]:
    """Two values that differ; of arrays, the first items that do."""
    if value.type is not ValueType.ARRAY:
        return text_of(value), text_of(other)
    if len(value.data) != len(other.data):
        return f"{len(value.data)} items", f"{len(other.data)} items"
    at, mine, theirs = next(
        (at, a, b) for at, (a, b) in enumerate(zip_longest(value.data, other.data)) if repr(a) != repr(b)
    )
    return f"[{at}] {_text(mine)}", f"[{at}] {_text(theirs)}"


def text_of(value: Value) -> str:
    """A value, short enough for a line and with nothing a terminal acts on."""
    if value.type is ValueType.ARRAY:
        more = ", ..." if len(value.data) > 3 else ""
        return f"{len(value.data)} items: {', '.join(map(_text, value.data[:3]))}{more}"
    return _text(value.data)


def _text(data: object) -> str:
    if isinstance(data, float):
        return f"{data:.9g}"
    return printable(data if isinstance(data, str) else str(data))
