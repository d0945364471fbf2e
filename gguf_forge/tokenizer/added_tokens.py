"""Tokens that JSON files add to a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from gguf_forge.tokenizer.checks import Place, as_flag, as_mapping, as_text


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in a text before the text is split.

    Attributes:
        content: Its text.
        single_word: Whether it is only found as a whole word.
        lstrip: Whether it takes the space before it.
        rstrip: Whether it takes the space after it.
        normalized: Whether it is looked for in the normalized text; None for the usual, which is no for special tokens.
        special: Whether it is a control token.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None
    special: bool = False

    @property
    def flags(self) -> dict[str, bool]:
        """The flags that are given."""
        return {name: value for name in FLAGS if (value := getattr(self, name)) is not None}


FLAGS = tuple(field.name for field in fields(AddedToken) if field.name != "content")
# A special token, as a plain text or with flags. The two forms are treated differently if the token is new.
SpecialToken: TypeAlias = "str | AddedToken"


def read_added_token(value: Any, place: Place, special: bool | None = None) -> AddedToken:
    """An added token from its object in a JSON file. `special`, if given, overrides the object's own flag."""
    fields = as_mapping(value, place)
    flags = {name: as_flag(fields[name], place / name) for name in FLAGS if name in fields}
    if special is not None:
        flags["special"] = special
    return AddedToken(as_text(fields.get("content"), place / "content"), **flags)


def read_special_token(value: Any, place: Place, special: bool | None = None) -> SpecialToken | None:
    """A special token from a text or an object in a JSON file; None stays None."""
    if value is None or isinstance(value, AddedToken):
        return value
    if isinstance(value, str):
        return as_text(value, place)
    return read_added_token(value, place, special)


def text_of(token: SpecialToken) -> str:
    return token if isinstance(token, str) else token.content
