"""Text that others wrote, on its way to a screen, a message, a page or the name of a file.

Names of tensors, keys, files and folders come from strangers, and none of them may act on a terminal or turn text
round. All that the program prints or writes into a page passes through `escaped` last, every message through
`message`, and the name of a new file through `file_name`. No other module decides which characters are harmless.
"""

from __future__ import annotations

_DIGITS = 18
LONGEST_MESSAGE = 2000  # characters
_ITEM = "\n  "  # begins an item of a list in a message
_END_OF_MESSAGE = 400  # characters that stay at the end when a message is cut, because they often say what is wrong


def escaped(text: str | bytes, limit: int | None = None, *, keep: str = "") -> str:
    """The text with every character that is not printable written as an escape sequence.

    Such characters are controls of C0 and C1, those that turn the direction of text, separators of lines, those that
    nobody sees, and lone surrogates, which stand for bytes that are not text.

    Args:
        text: Text from anywhere. Bytes are read as UTF-8.
        limit: Characters after which it is cut; None for all of it.
        keep: Characters that stay as they are.

    Example:
        >>> escaped("a\\x1b[2Jb"), escaped("a\\u202eb"), escaped("abcdef", 3)
        ('a\\\\x1b[2Jb', 'a\\\\u202eb', 'abc... 3 more characters')
    """
    shown = as_text(text)
    cut = shown if limit is None else shortened(shown, limit)
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() or char in keep else repr(char)[1:-1] for char in cut)


def shortened(text: str, limit: int) -> str:
    """The first `limit` characters, and how many more there are."""
    return text if len(text) <= limit else f"{text[:limit]}... {len(text) - limit:,} more characters"


def as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode(errors="surrogateescape")


def natural(text: str) -> int | None:
    """The number that decimal digits write; None for other text, and for numbers of more than 18 digits.

    Python itself gives up at 4,300 digits, and the time it takes for a number grows with the square of its digits.

    Example:
        >>> natural("12"), natural("-1"), natural("9" * 5000)
        (12, None, None)
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None


def message(text: str) -> str:
    """What a message says, in at most about `LONGEST_MESSAGE` characters. It is cut before its end.

    A line break stays only before two spaces, which indent an item of a list. So no text can feign a line of the
    program's own.

    Example:
        >>> message("no\\nsuch key"), len(message("a" * 5_000_000)) < 2100
        ('no\\\\nsuch key', True)
    """
    left_out = len(text) - LONGEST_MESSAGE
    if left_out > 0:
        start = text[: LONGEST_MESSAGE - _END_OF_MESSAGE]
        text = f"{start}... {left_out:,} more characters ...{text[-_END_OF_MESSAGE:]}"
    return _ITEM.join(map(escaped, text.split(_ITEM)))


def file_name(text: str) -> str:
    """The text as a part of a file's name: hyphens stand for what is not printable and for separators of folders.

    A name does not begin with a hyphen, which would make it an option of other programs, or with a dot, which would
    hide it.

    Example:
        >>> file_name("--rf\\x1b/model"), file_name(".hidden"), file_name("Größe-7B")
        ('rf--model', 'hidden', 'Größe-7B')
    """
    safe = "".join(char if char.isprintable() and char not in "/\\" else "-" for char in text)
    return safe.lstrip("-. ")
