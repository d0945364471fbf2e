"""How an option is spelled on the command line and in help, and how its text is read.

The fields of a request and of run settings carry an `Option`, from which the command line is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from gguf_forge.errors import UsageError

# The panels of help that commands share.
OUTPUT, MIX, MODEL, RUNNING, MESSAGES = "Output", "Types of tensors", "Model and metadata", "Running", "Messages"

_SIZE_LETTERS = ("", "K", "M", "G", "T")
_BINARY = ("I", "IB")  # what follows the letter of a power of 1024

# What the help says of sizes.
IN_1024 = "K, M and G are powers of 1024."
IN_1000 = "K, M and G are powers of 1000; Ki, Mi and Gi of 1024."


@dataclass(frozen=True)
class Option:
    """How an option is spelled on the command line, and its help.

    Attributes:
        names: "-o --outfile"; for an argument its name in the help, "SOURCE".
        help: One or two sentences.
        panel: The panel of the help; None for that of the command's arguments.
        metavar: The placeholder for the value in the help; None for a flag.
        least: The smallest number that is accepted.
        most: The largest number that is accepted.
        envvar: The environment variable that gives the value if the option is not used.
        typed: The type of the typed text, if `parse` converts it to another one.
        parse: Converts the typed text to the value.
        at_once: What a flag does before any other option is read; the command ends with it.
        hidden: The option works, but the help does not list it.
        values: Which values a shell completes: a key of `gguf_forge.cli.completion.VALUES`.
        writes: The value is the path of an output. That of `-o` always is.
    """

    names: str
    help: str
    panel: str | None = None
    metavar: str | None = None
    least: int | None = None
    most: int | None = None
    envvar: str | None = None
    typed: type = str
    parse: Callable[[Any], Any] | None = None
    at_once: Callable[[], None] | None = None
    hidden: bool = False
    values: str | None = None
    writes: bool = False

    @property
    def is_argument(self) -> bool:
        return not self.names.startswith("-")


def parse_size(text: str, *, option: str = "--split-max-size", unit: int = 1000) -> int:
    """The bytes in `text`: a number, and K, M, G, T or nothing for a power of `unit`.

    `i` or `iB` after the letter says that powers of 1024 are meant, whatever `unit` is.

    Raises:
        UsageError: it is something else.

    Example:
        >>> parse_size("2G"), parse_size("1.5GB"), parse_size("512 MiB"), parse_size("3Gi")
        (2000000000, 1500000000, 536870912, 3221225472)
    """
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMGT]?)(IB?|B)?", text.strip().upper())
    if found is None or (not found[2] and found[3] in _BINARY):
        raise UsageError(
            f"{option}: invalid size {text!r}", hint="use a number with K, M or G, for example 500M or 1.5G"
        )
    return int(Fraction(found[1]) * (1024 if found[3] in _BINARY else unit) ** _SIZE_LETTERS.index(found[2]))


def parse_memory(given: int | str | None) -> int | None:
    """The bytes of `--max-memory`: a number, or a text such as "300M", in which M is 2^20.

    Example:
        >>> parse_memory("300M"), parse_memory(1000), parse_memory(None)
        (314572800, 1000, None)
    """
    return parse_size(given, option="--max-memory", unit=1024) if isinstance(given, str) else given


def parse_names(given: Sequence[str] | None) -> tuple[str, ...]:
    """`-t A,B -t C` as A, B, C.

    Raises:
        UsageError: there are texts, and no name in them, as a shell's empty variable gives.

    Example:
        >>> parse_names(["A, B", "C"])
        ('A', 'B', 'C')
    """
    names = tuple(name for text in given or () for part in text.split(",") if (name := part.strip()))
    if given and not names:
        raise UsageError("a list of names is empty", hint="leave the option out, or name something")
    return names


def parse_types(given: Sequence[str] | None) -> tuple[str, ...]:
    """`-t main:A,B -t C` as main:A, main:B, C: a part of the model before a type counts up to the next one.

    Example:
        >>> parse_types(["main:Q4_K_M,Q8_0,mmproj:BF16", "F16"])
        ('main:Q4_K_M', 'main:Q8_0', 'mmproj:BF16', 'F16')
    """
    found: list[str] = []
    for text in given or ():
        part = ""
        for name in parse_names([text]):
            before, colon, after = name.partition(":")
            part = before.strip() + colon if colon else part
            found.append(part + (after.strip() if colon else name))
    return tuple(found)
