"""Tokens that JSON files add to a vocabulary, as objects of the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from gguf_forge.tokenizer.checks import Place, as_flag, as_mapping, as_text

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

# A special token, as a plain text or with flags. The two forms are treated differently if the token is new.
SpecialToken: TypeAlias = "str | AddedToken"

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def read_added_token(value: Any, place: Place, special: bool | None = None) -> AddedToken:
    """An added token from its object in a JSON file. `special`, if given, overrides the object's own flag."""
    from tokenizers import AddedToken

    fields = as_mapping(value, place)
    flags = {name: as_flag(fields[name], place / name) for name in _FLAGS if name in fields}
    if special is not None:
        flags["special"] = special
    return AddedToken(as_text(fields.get("content"), place / "content"), **flags)


def read_special_token(value: Any, place: Place, special: bool | None = None) -> SpecialToken | None:
    """A special token from a text or an object in a JSON file; None stays None."""
    from tokenizers import AddedToken

    if value is None or isinstance(value, AddedToken):
        return value
    if isinstance(value, str):
        return as_text(value, place)
    return read_added_token(value, place, special)


def text_of(token: SpecialToken) -> str:
    return token if isinstance(token, str) else token.content


def add_tokens(engine: Tokenizer, added: list[AddedToken], special: Iterable[SpecialToken]) -> Tokenizer:
    """The engine with the missing tokens added in transformers' order, because new tokens get the next free ids.
    Source: `PreTrainedTokenizerFast.__init__` of transformers 4.57.6.
    """
    from tokenizers import AddedToken, Tokenizer

    before = {token.content: token.normalized for token in engine.get_added_tokens_decoder().values()}
    present = {_identity(token) for token in engine.get_added_tokens_decoder().values()}
    listed = {_identity(token) for token in added}
    # A special token given as a plain text is compared by its text, one with flags by its text and flags.
    known = listed | {(identity[0],) for identity in present | listed}
    special = list(special)
    texts = {text_of(token) for token in special}
    ready = []
    for token in (*added, *(token for token in special if _identity(token) not in known)):
        if isinstance(token, str):
            ready.append(AddedToken(token, special=True))
        else:
            token.special = token.special or token.content in texts
            ready.append(token)
    # Only tokens that the engine lacks are added. Some versions of the engine treat a token that they already have as
    # new, and then reset another token with the same text.
    changed = [token for token in ready if _identity(token) not in present]
    engine.add_tokens(changed)
    if any(before.get(token.content, token.normalized) != token.normalized for token in changed):
        # Some versions of the engine keep the old normalized form of a changed token. A new engine does not.
        return Tokenizer.from_str(engine.to_str())
    return engine


def _identity(token: SpecialToken) -> tuple[object, ...]:
    """The values that make two added tokens equal. The engine's own token objects cannot be hashed."""
    if isinstance(token, str):
        return (token,)
    return token.content, token.single_word, token.lstrip, token.rstrip, token.normalized, token.special
