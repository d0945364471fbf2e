"""Metadata values that a user writes: `KEY=TYPE:VALUE`, or `KEY=VALUE` where the key has a type already.

`KEY[N]` is one item of a list, from 0. A value `@FILE.json` is read from a file, because a command line cannot hold the
items of a vocabulary; only the text of `str:` is always the value itself.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gguf_forge.errors import UsageError, printable
from gguf_forge.gguf_file.header import FORMATS
from gguf_forge.gguf_file.values import Metadata, Value, ValueType
from gguf_forge.storage.json_file import read_json
from gguf_forge.storage.local.folder import located
from gguf_forge.tokenizer.checks import encodable

# The type names of --override-kv, and short names. GGUF's own names of types are also accepted.
_WORDS = {
    "int": ValueType.UINT32,
    "float": ValueType.FLOAT32,
    "str": ValueType.STRING,
    **{
        f"{letter}{bits}": ValueType[f"{word}{bits}"]
        for letter, word in (("u", "UINT"), ("i", "INT"))
        for bits in (8, 16, 32, 64)
    },
    "f32": ValueType.FLOAT32,
    "f64": ValueType.FLOAT64,
    **{kind.name.lower(): kind for kind in ValueType if kind is not ValueType.ARRAY},
}
_TYPED = re.compile(r"(\[?)([A-Za-z0-9]+)(\]?):(.*)", re.DOTALL)
_TYPES = "TYPE is str, bool, int, float, u8 to u64, i8 to i64, f32, f64, or [TYPE] for a list such as [i32]:[1,2]"
_ITEM = re.compile(r"(.+)\[([0-9]{1,10})\]", re.DOTALL)
_FLOATS = (ValueType.FLOAT32, ValueType.FLOAT64)


@dataclass(frozen=True)
class UntypedValue:
    """Text without a type. It is read as the type that the key already has."""

    text: str


class Setting(NamedTuple):
    """A key, and the value to set."""

    key: str
    value: Value | UntypedValue


def parse_setting(text: str) -> Setting:
    """Reads `KEY=TYPE:VALUE`, `KEY=[TYPE]:[VALUE,...]` with a JSON list, `KEY=[TYPE]:@FILE.json`, or `KEY=VALUE`.

    Raises:
        UsageError: it is none of these, or the value does not fit the type.

    Example:
        >>> parse_setting("llama.context_length=u32:4096").value.data, parse_setting("general.name=Mine").value
        (4096, UntypedValue(text='Mine'))
    """
    key, separator, rest = text.partition("=")
    if not key or not separator:
        raise UsageError(f"{printable(text)} is not KEY=VALUE", hint="for example general.name=str:Mine")
    found = _TYPED.fullmatch(rest)
    kind = _WORDS.get(found[2].lower()) if found and bool(found[1]) == bool(found[3]) else None
    if found is None or kind is None:
        return Setting(key, UntypedValue(rest))
    if kind is ValueType.STRING and not found[1]:
        return Setting(key, checked(key, found[4], kind, None))
    return Setting(key, _read(key, found[4], ValueType.ARRAY if found[1] else kind, kind if found[1] else None))


def typed(key: str, value: object, old: Value | None) -> Value:
    """A value for a key: of the type that it has, or of the usual one for what is given.

    Args:
        key: For messages.
        value: A `Value`, `UntypedValue` text, a number, a text, true or false, or a list of those.
        old: What the key holds; None for a new key.

    Raises:
        UsageError: it does not fit the type, or is text for a new key without saying which type.

    Example:
        >>> from gguf_forge.gguf_file.values import Metadata, Value, ValueType
        >>> typed("a", 7, Value(ValueType.UINT64, 1)).type.name, typed("a", 7, None).type.name
        ('UINT64', 'UINT32')
    """
    if isinstance(value, Value):
        return checked(key, value.data, value.type, value.element)
    if isinstance(value, UntypedValue):
        if old is None:
            problem = f"{printable(key)} is a new key: give its type"
            raise UsageError(problem, hint=f"KEY=TYPE:VALUE, such as {printable(key)}=str:VALUE for a text; {_TYPES}")
        return _read(key, value.text, old.type, old.element)
    kind, element = (old.type, old.element) if old is not None else _usual(key, value)
    return checked(key, value, kind, element)


def with_item(key: str, value: object, metadata: Metadata) -> tuple[str, Value] | None:
    """For `KEY[N]`: KEY, and its list with another item N. None if `key` is a key of its own.

    Raises:
        UsageError: there is no such list or item, or the value does not fit.

    Example:
        >>> from gguf_forge.gguf_file.values import array
        >>> with_item("a[1]", 7, {"a": array(ValueType.INT32, (1, 2))})[1].data
        (1, 7)
    """
    found = _ITEM.fullmatch(key) if key not in metadata else None
    if found is None:
        return None
    name, at = found[1], int(found[2])
    old = metadata.get(name)
    if old is None or old.element is None or old.element is ValueType.ARRAY:
        problem = f"there is no list {printable(name)}, and {printable(key)} is an item of one"
        raise UsageError(problem, hint="`gguf-forge inspect` lists the keys")
    if at >= len(old.data):
        raise UsageError(f"{printable(name)} has no item {at}", hint=f"it has {len(old.data)} items, counted from 0")
    item = typed(key, value, Value(old.element, old.data[at]))
    if item.type is not old.element:
        raise UsageError(f"{printable(name)} is a list of {old.element.name}, not {item.type.name}")
    return name, Value(old.type, (*old.data[:at], item.data, *old.data[at + 1 :]), old.element)


def _usual(key: str, value: object) -> tuple[ValueType, ValueType | None]:
    if isinstance(value, list | tuple):
        if not value:
            raise UsageError(f"{printable(key)} is an empty list: give its type with a Value")
        if isinstance(value[0], list | tuple):
            raise UsageError(f"{printable(key)} is a list of lists, which GGUF readers do not take")
        return ValueType.ARRAY, _usual(key, value[0])[0]
    kinds = ((bool, ValueType.BOOL), (int, ValueType.UINT32), (float, ValueType.FLOAT32), (str, ValueType.STRING))
    found = next((kind for python, kind in kinds if isinstance(value, python)), None)
    if found is None:
        raise UsageError(f"{printable(key)} cannot be a {type(value).__name__}")
    return found, None


def _read(key: str, text: str, kind: ValueType, element: ValueType | None) -> Value:
    """Text as a value of a type. `@FILE.json` is the value in that file."""
    if text.startswith("@") and text.endswith(".json"):
        return checked(key, read_json(*located(Path(text[1:]))), kind, element)
    if kind is ValueType.STRING:
        return checked(key, text, kind, None)
    if kind is ValueType.BOOL:
        return checked(key, {"true": True, "false": False}.get(text, text), kind, None)
    if kind is ValueType.ARRAY:
        try:
            return checked(key, json.loads(text), kind, element)
        except (ValueError, RecursionError):
            name = element.name if element is not None else "?"
            raise UsageError(
                f"{printable(key)} is a list of {name}, and {printable(text)} is not a list",
                hint='write it as JSON, for example [1,2] or ["a","b"]',
            ) from None
    try:
        if "_" in text:  # Python would read 1_000 as 1000
            raise ValueError
        number: object = float(text) if kind in _FLOATS else int(text)
    except ValueError:
        number = text
    return checked(key, number, kind, None)


def checked(key: str, data: object, kind: ValueType, element: ValueType | None) -> Value:
    """A value of a type, if it can hold the data.

    Raises:
        UsageError: it cannot.
    """
    if kind is ValueType.ARRAY and element is not None:
        if not isinstance(data, Sequence) or isinstance(data, str | bytes):
            raise UsageError(f"{printable(key)} is a list of {element.name}, not {printable(repr(data))}")
        return Value(kind, tuple(checked(key, item, element, None).data for item in data), element)
    if not _fits(data, kind):
        raise UsageError(f"{printable(key)} is {kind.name}, which cannot be {printable(str(data))}", hint=_range(kind))
    if isinstance(data, float) and np.isnan(data) and kind is ValueType.FLOAT32:
        return Value(kind, np.float32(data))
    return Value(kind, float(data) if kind in _FLOATS else data)  # type: ignore[arg-type]


def _fits(data: Any, kind: ValueType) -> bool:
    if kind is ValueType.STRING:
        return isinstance(data, bytes) or (isinstance(data, str) and encodable(data))
    if kind is ValueType.BOOL:
        return isinstance(data, bool)
    if isinstance(data, bool) or not isinstance(data, (int, float) if kind in _FLOATS else int):
        return False
    try:
        struct.pack(f"<{FORMATS[kind]}", data)
    except (struct.error, OverflowError):
        return False
    return True


def _range(kind: ValueType) -> str:
    if kind is ValueType.BOOL:
        return "write true or false"
    if kind is ValueType.STRING:
        return "it must be text that UTF-8 can hold"
    if kind in _FLOATS:
        return "it must be a number that the type can hold"
    bits = struct.calcsize(FORMATS[kind]) * 8
    low, high = (0, 2**bits - 1) if kind.name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return f"it must be a whole number from {low} to {high}"
