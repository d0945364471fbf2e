"""The types of tokens in a vocabulary. Source: llama.cpp's `llama_token_type`."""

from __future__ import annotations

from enum import IntEnum


class TokenType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_CONTROL_TEXTS = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
_CONTROL_SHAPES = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))  # noqa: RUF001 (full-width bars are DeepSeek's)


def looks_like_control(text: str) -> bool:
    """Whether a token's text looks like a control token. Some models do not mark their control tokens as special.

    Source: `does_token_look_special` of llama.cpp's converter.

    Example:
        >>> looks_like_control("<|im_start|>"), looks_like_control("<b>")
        (True, False)
    """
    return text in _CONTROL_TEXTS or any(text.startswith(a) and text.endswith(b) for a, b in _CONTROL_SHAPES)


def marked(special: bool) -> TokenType:
    """The type of an added token, if only its mark as special counts."""
    return TokenType.CONTROL if special else TokenType.USER_DEFINED


def added_token(text: str, special: bool) -> tuple[str, TokenType]:
    """The text and type with which an added token is written.

    User-defined tokens match plain text, so their spaces are written as spaces.
    """
    if special or looks_like_control(text):
        return text, TokenType.CONTROL
    return text.replace("\u2581", " "), TokenType.USER_DEFINED
