"""Edits of a vocabulary: which tokens are special, and the types of tokens."""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.errors import UsageError, printable
from gguf_forge.gguf_file.values import Metadata, Value, ValueType
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.wording import log_of

log = log_of(__name__)

_TOKENS = "tokenizer.ggml.tokens"
_TYPES = "tokenizer.ggml.token_type"
# The kinds of special tokens: the names of gguf_new_metadata.py, and other names in use.
_SPECIAL = (
    *("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask", "prefix", "suffix", "middle"),
    *(f"fim_{part}" for part in ("pre", "suf", "mid", "pad", "rep", "sep")),
)
_ALIASES = {"unk": "unknown", "sep": "seperator", "separator": "seperator", "pad": "padding"}


def special_token(kind: str, token: str | int, metadata: Metadata) -> tuple[str, int]:
    """The key for a kind of special token, and the id of the token chosen for it.

    Raises:
        UsageError: there is no such kind or token.
    """
    name = _ALIASES.get(kind, kind)
    if name not in _SPECIAL:
        raise UsageError(f"there is no special token {printable(kind)}", hint=f"there are {', '.join(_SPECIAL)}")
    return f"tokenizer.ggml.{name}_token_id", _id_of(token, metadata)


def with_token_types(metadata: Metadata, types: Mapping[str | int, str]) -> Metadata:
    """The keys with other types of some tokens.

    Args:
        metadata: All keys.
        types: The text or id of a token -> normal, unknown, control, user_defined, unused or byte.

    Raises:
        UsageError: there is no such token or type, or the vocabulary has no types.
    """
    old = metadata.get(_TYPES)
    if old is None or old.element not in (ValueType.INT32, ValueType.UINT32):
        raise UsageError("the vocabulary has no types of tokens", hint=f"it lacks {_TYPES}")
    numbers = list(old.data)
    for token, word in types.items():
        id, kind = _id_of(token, metadata), _type_named(word)
        if id >= len(numbers):
            raise UsageError(f"token {id} has no type", hint=f"{_TYPES} has only {len(numbers)} items")
        numbers[id] = int(kind)
    return {**metadata, _TYPES: Value(ValueType.ARRAY, tuple(numbers), old.element)}


def _type_named(word: str) -> TokenType:
    found = TokenType.__members__.get(word.upper().replace("-", "_"))
    if found is None:
        names = ", ".join(kind.name.lower() for kind in TokenType)
        raise UsageError(f"there is no type of token {printable(word)}", hint=f"there are {names}")
    return found


def _id_of(token: str | int, metadata: Metadata) -> int:
    tokens = metadata.get(_TOKENS)
    if tokens is None or tokens.element is not ValueType.STRING:
        raise UsageError("the file has no vocabulary", hint=f"it lacks {_TOKENS}")
    if isinstance(token, int):
        if not 0 <= token < len(tokens.data):
            raise UsageError(f"{token} is not a token", hint=f"the vocabulary has tokens 0 to {len(tokens.data) - 1}")
        return token
    ids = [id for id, text in enumerate(tokens.data) if text == token]
    if not ids:
        raise UsageError(f"the vocabulary has no token {printable(token)}")
    if len(ids) > 1:
        shown = ", ".join(map(str, ids[:9])) + (", ..." if len(ids) > 9 else "")
        log.warning("tokens %s are all %s; the first one is taken", shown, printable(token))
    return ids[0]
