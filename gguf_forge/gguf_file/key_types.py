"""The types of the standard keys. llama.cpp reads a key only if it has the very type that it expects.

The table, key_types.json, holds the types that gguf-py's writer gives the keys. tools/refresh_key_types.py makes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.resources import files
from itertools import islice
from math import isfinite

from gguf_forge.gguf_file.values import Metadata, Value, ValueType

# Items of arrays whose type llama.cpp checks or relies on. The converter writes scores that are all zero as INT32.
# Source: llama-vocab.cpp.
_ITEMS = {
    "tokenizer.ggml.tokens": (ValueType.STRING,),
    "tokenizer.ggml.merges": (ValueType.STRING,),
    "tokenizer.ggml.scores": (ValueType.FLOAT32, ValueType.INT32),
    "tokenizer.ggml.token_type": (ValueType.INT32,),
}
_FLOATS = (ValueType.FLOAT32, ValueType.FLOAT64)
_REMEMBERED = 1 << 16  # keys: all of a file, which is planned once for each file type
_MOST_FLOATS = 1 << 16  # items of an array of floats that are looked at


@lru_cache(_REMEMBERED)
def standard_types(key: str, architecture: str) -> frozenset[ValueType]:
    """The types that a standard key may have; none if the key is no standard one.

    Args:
        key: The key.
        architecture: The beginning of the keys that belong to an architecture.

    Example:
        >>> sorted(standard_types("llama.context_length", "llama"))
        [<ValueType.UINT32: 4>]
    """
    own = key.removeprefix(f"{architecture}.")
    numbered = re.sub(r"\.[0-9]{1,9}\.", ".{id}.", f"{{arch}}.{own}" if own != key else key)
    return _table().get(numbered, frozenset())


def problem_of(key: str, value: Value, architecture: str) -> str | None:
    """What is wrong with a value of a standard key, as a sentence; None if readers take it.

    Example:
        >>> problem_of("llama.context_length", Value(ValueType.FLOAT32, 1.0), "llama")
        'llama.context_length is UINT32 to every reader, and not FLOAT32'
    """
    types = standard_types(key, architecture)
    if not types:
        return None
    items = _ITEMS.get(key, ())
    if value.type not in types or (items and value.element not in items):
        wanted = [f"a list of {items[0].name}"] if items else [_name(kind, None) for kind in sorted(types)]
        return f"{key} is {' or '.join(wanted)} to every reader, and not {_name(value.type, value.element)}"
    floats: Iterable[float] = ()
    if value.type in _FLOATS:
        floats = (value.data,)
    elif value.element in _FLOATS:
        floats = islice(value.data, _MOST_FLOATS)
    return None if all(map(isfinite, floats)) else f"{key} is infinite or not a number"


def problems(metadata: Metadata, architecture: str) -> tuple[str, ...]:
    """What is wrong with the standard keys of a file."""
    found = (problem_of(key, value, architecture) for key, value in metadata.items())
    return tuple(problem for problem in found if problem is not None)


def _name(kind: ValueType, element: ValueType | None) -> str:
    if kind is not ValueType.ARRAY:
        return kind.name
    return f"a list of {element.name}" if element is not None else "a list"


@cache
def _table() -> dict[str, frozenset[ValueType]]:
    stored = json.loads((files(__package__) / "key_types.json").read_text(encoding="utf-8"))
    return {key: frozenset(ValueType[name] for name in names) for key, names in stored.items()}
