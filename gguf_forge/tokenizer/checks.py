"""Typed access to values in JSON files. Each function returns the value or raises an InputError with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from gguf_forge.errors import InputError
from gguf_forge.storage.memory import check_memory

# The most tokens of a vocabulary: far more than any real one has, and few enough for the memory.
MAX_TOKENS = 1 << 24
# The most bytes that a token takes until the file is written: its text twice, its type, and what is kept of the parts
# that it was made from.
_BYTES_OF_TOKEN = 400
_MAX_FLOAT32 = (2 - 2**-23) * 2.0**127


class Place:
    """The place of a value: a file and a path inside it. `place / "key"` goes one step down.

    Example:
        >>> str((Place("tokenizer.json") / "model" / "merges").error("is a number"))
        'tokenizer.json: model.merges is a number'
    """

    def __init__(self, file: str | PathLike[str], path: str = ""):
        self.file = file
        self.path = path

    def __truediv__(self, step: object) -> Place:
        return Place(self.file, f"{self.path}.{step}" if self.path else str(step))

    def error(self, problem: str, hint: str | None = None) -> InputError:
        return InputError(f"{self.path or 'the file'} {problem}", file=self.file, hint=hint)

    def expected(self, what: str, value: object) -> InputError:
        shown = repr(value)
        return self.error(f"must be {what}, not {shown if len(shown) <= 60 else shown[:57] + '...'}")


def as_mapping(value: Any, place: Place) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise place.expected("an object", value)
    return value


def as_list(value: Any, place: Place) -> list[Any]:
    if not isinstance(value, list):
        raise place.expected("a list", value)
    return value


def as_text(value: Any, place: Place) -> str:
    """A string that can be written as UTF-8. JSON escapes can make lone surrogates, which a GGUF string cannot hold."""
    if not isinstance(value, str):
        raise place.expected("a string", value)
    if not encodable(value):
        raise place.error(f"has a lone surrogate: {value[:40]!r}")
    return value


def as_texts(value: Any, place: Place) -> list[str]:
    """A list of strings that can be written as UTF-8. It is checked as a whole, because a list of merges is long."""
    texts = as_list(value, place)
    try:
        whole = "".join(texts)
    except TypeError:
        index = next(i for i, text in enumerate(texts) if not isinstance(text, str))
        raise (place / index).expected("a string", texts[index]) from None
    if not encodable(whole):
        index = next(i for i, text in enumerate(texts) if not encodable(text))
        raise (place / index).error(f"has a lone surrogate: {texts[index][:40]!r}")
    return texts


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_flag(value: Any, place: Place) -> bool:
    if not isinstance(value, bool):
        raise place.expected("true or false", value)
    return value


def as_number(value: Any, place: Place) -> float:
    """A number that a FLOAT32 can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_FLOAT32:
        raise place.expected("a number", value)
    return float(value)


def as_id(value: Any, place: Place, maximum: int = (1 << 32) - 1) -> int:
    """A token id: an integer from 0 to `maximum`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise place.expected("a token id", value)
    return value


def as_decimal_id(key: str, place: Place) -> int:
    """A token id from the key of an object, which must consist of decimal digits."""
    if not (key.isascii() and key.isdigit() and len(key) <= 10):
        raise place.error(f"has the key {key[:40]!r}, which is not a token id")
    return as_id(int(key), place)


def vocabulary_size(config: Mapping[str, Any], place: Place, keys: Iterable[str] = ("vocab_size",)) -> int | None:
    """The value of the first of `keys` that the configuration has, or None. Raises InputError for impossible sizes."""
    for key in keys:
        if key in config and config[key] is not None:
            size = config[key]
            if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= MAX_TOKENS:
                raise (place / key).expected(f"a number of tokens from 1 to {MAX_TOKENS}", size)
            check_vocabulary_memory(size, place)
            return size
    return None


def check_vocabulary_memory(size: int, place: Place) -> None:
    """Refuses more tokens than the memory holds. A file needs only a number to ask for millions of unused ones."""
    check_memory(size * _BYTES_OF_TOKEN, f"a vocabulary of {size:,} tokens", Path(place.file))
