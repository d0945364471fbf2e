"""Metadata keys that differ, as `verify` and `compare` show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gguf_forge.cli.shown import json_value, type_text, value_text
from gguf_forge.cli.tables import table_of

if TYPE_CHECKING:
    from gguf_forge.cli.tables import Table
    from gguf_forge.gguf_file.values import Value
    from gguf_forge.toolbox.inspect.metadata_diff import KeyDifference

_LONGEST = 100


def key_object(difference: KeyDifference) -> dict[str, Any]:
    """The difference as a JSON object. An array is given by its length and the item that differs."""
    return {
        "key": difference.key,
        "difference": difference.kind,
        "expected": _value_object(difference.expected, difference.at),
        "found": _value_object(difference.found, difference.at),
    }


def _value_object(value: Value | None, at: int | None) -> dict[str, Any] | None:
    if value is None:
        return None
    if value.element is None:
        return {"type": value.type.name, "value": json_value(value)}
    item = {} if at is None else {"index": at, "item": json_value(_item(value, at))}
    return {"type": value.type.name, "of": value.element.name, "count": len(value.data), **item}


def keys_table(differences: Sequence[KeyDifference], first: str, second: str) -> Table:
    """A row for each difference; the columns of the two files are called `first` and `second`."""
    table = table_of("key", "difference", first, second, folding=(first, second))
    for each in differences:
        values = [_shown(value, each) for value in (each.expected, each.found)]
        table.add_row(each.key, each.kind, *values)
    return table


def _shown(value: Value | None, difference: KeyDifference) -> str:
    if value is None:
        return ""
    if difference.kind == "type":
        return type_text(value)
    if difference.at is not None:
        return f"[{difference.at}] {value_text(_item(value, difference.at), _LONGEST)}"
    if value.element is not None:
        return f"{len(value.data)} items"
    return value_text(value, _LONGEST)


def _item(value: Value, at: int) -> Value:
    from gguf_forge.gguf_file.values import Value, ValueType

    return Value(value.element or ValueType.STRING, value.data[at])
