"""Tokens that JSON files add to a vocabulary, as the `tokenizers` library has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from gguf_forge.tokenizer.checks import Place, as_flag, as_mapping, as_text

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

# A special token is given as a text or with flags, which makes a difference when it is new.
SpecialToken: TypeAlias = "str | AddedToken"

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def read_added_token(value: Any, place: Place, special: bool | None = None) -> AddedToken:
    """An added token from its object in a JSON file; `special` outranks what the object says."""
    from tokenizers import AddedToken

    fields = as_mapping(value, place)
    flags = {name: as_flag(fields[name], place / name) for name in _FLAGS if name in fields}
    if special is not None:
        flags["special"] = special
    return AddedToken(as_text(fields.get("content"), place / "content"), **flags)


def read_special_token(value: Any, place: Place, special: bool | None = None) -> SpecialToken | None:
    """A special token given as a text or an object; None stays None."""
    from tokenizers import AddedToken

    if value is None or isinstance(value, AddedToken):
        return value
    if isinstance(value, str):
        return as_text(value, place)
    return read_added_token(value, place, special)


def text_of(token: SpecialToken) -> str:
    return token if isinstance(token, str) else token.content


def add_tokens(engine: Tokenizer, added: list[AddedToken], special: Iterable[SpecialToken]) -> Tokenizer:
    """The engine with what it lacks, added in transformers' order: new tokens get the next free ids.

    Source: `PreTrainedTokenizerFast.__init__` of transformers 4.57.6.
    """
    from tokenizers import AddedToken, Tokenizer

    before = {token.content: token.normalized for token in engine.get_added_tokens_decoder().values()}
    present = {_identity(token) for token in engine.get_added_tokens_decoder().values()}
    listed = {_identity(token) for token in added}
    # A plain text is looked for among texts, a token with flags among such.
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
    # Some versions of the engine take a token that they have for news, and change one of the same text back.
    changed = [token for token in ready if _identity(token) not in present]
    engine.add_tokens(changed)
    if any(before.get(token.content, token.normalized) != token.normalized for token in changed):
        # Some versions remember how they normalized a token before.
        return Tokenizer.from_str(engine.to_str())
    return engine


def _identity(token: SpecialToken) -> tuple[object, ...]:
    """What makes two added tokens equal; those of the engine cannot be hashed."""
    if isinstance(token, str):
        return (token,)
    return token.content, token.single_word, token.lstrip, token.rstrip, token.normalized, token.special
