"""Metadata values as people and scripts see them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gguf_forge.foreign_text import as_text, escaped, shortened

if TYPE_CHECKING:
    from gguf_forge.gguf_file.rules import BrokenRule
    from gguf_forge.gguf_file.values import Value

_ITEMS = 6  # items of an array that are shown
_ITEM_TEXT = 32  # characters of one text in an array


def type_text(value: Value) -> str:
    """The type as gguf-py's tools write it.

    Example:
        >>> from gguf_forge.gguf_file.values import ValueType, array, u32
        >>> type_text(u32(1)), type_text(array(ValueType.STRING, "ab"))
        ('UINT32', '[STRING]')
    """
    return f"[{value.element.name}]" if value.element is not None else value.type.name


def value_text(value: Value, limit: int | None = None) -> str:
    """The value on one line: a text without quotes, or the first items of an array.

    Args:
        value: A value of a GGUF file.
        limit: Characters of a text after which it is cut; None for all of it.

    Example:
        >>> from gguf_forge.gguf_file.values import ValueType, array, f32, string
        >>> value_text(string("one\\ntwo")), value_text(f32(1e-5)), value_text(array(ValueType.UINT8, range(9)))
        ('one\\\\ntwo', '1e-05', '[0, 1, 2, 3, 4, 5, ... 3 more]')
    """
    kind = value.type.name
    if kind == "STRING":
        return escaped(value.data, limit)
    if kind != "ARRAY":
        return _number_text(value.data, kind)
    element = value.element.name if value.element is not None else ""
    items = [_item_text(item, element) for item in value.data[:_ITEMS]]
    more = len(value.data) - len(items)
    return f"[{', '.join(items)}{f', ... {more} more' if more else ''}]"


def _item_text(item: Any, element: str) -> str:
    if element == "STRING":
        return repr(shortened(as_text(item), _ITEM_TEXT))
    return value_text(item) if element == "ARRAY" else _number_text(item, element)


def _number_text(data: Any, kind: str) -> str:
    return str(_number(data, kind)).lower()  # true, as --set takes it


def json_value(value: Value) -> Any:
    """The value as JSON can hold it: bytes that are not text become lone surrogates, and NaN and infinity their names.

    Example:
        >>> from gguf_forge.gguf_file.values import f32
        >>> json_value(f32(0.1)), json_value(f32(float("inf")))
        (0.1, 'inf')
    """
    if value.element is not None:
        return [_json_item(item, value.element.name) for item in value.data]
    return _json_item(value.data, value.type.name)


def _json_item(item: Any, kind: str) -> Any:
    if kind == "ARRAY":
        return json_value(item)
    if kind == "STRING":
        return as_text(item)
    number = _number(item, kind)
    return number if not isinstance(number, float) or math.isfinite(number) else str(number)


def _number(data: Any, kind: str) -> int | float | bool:
    """The number. A 32-bit float gets just as many digits as are needed to tell it from its neighbours."""
    if kind != "FLOAT32":
        return data  # type: ignore[no-any-return]
    import numpy as np

    return float(str(np.float32(data)))


def rule_object(broken: BrokenRule) -> dict[str, Any]:
    """A rule that a file breaks, as a JSON object."""
    error = broken.error
    return {
        "rule": broken.rule.value,
        "problem": error.words.problem,
        "file": str(error.file),
        "hint": error.words.hint,
        "names": broken.names,
    }
