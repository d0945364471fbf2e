"""The rules of ggml that a file may break and still be read: what breaks them is noted, and refused or shown.

ggml loads no file that breaks one of them. Other programs write and load such files on purpose, and a file that is not
complete breaks some of them for a while. The bytes of such a file are found all the same, by the same checked steps.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from gguf_forge.errors import ForgeError

_MOST_NAMES = 3


class Bounds(NamedTuple):
    """The bytes of a tensor's name, its dimensions, and the levels of arrays in arrays, at most."""

    name_bytes: int
    dims: int
    nesting: int


GGML = Bounds(63, 4, 0)  # GGML_MAX_NAME (64) also counts the terminating NUL
WIDEST = Bounds(1024, 8, 4)  # what is read and copied


class FormatRule(str, Enum):
    """A rule that a file can break and still be read."""

    EMPTY_KEY = "empty key"
    KEY_TWICE = "key twice"
    NESTED = "array of arrays"
    NAME = "long name"
    DIMS = "dimensions"
    TYPE = "tensor type"
    OFFSET = "offset"
    CUT = "cut short"
    HEADER = "header cut short"
    PARTS = "missing parts"
    SPLIT = "part of a split"


# Other programs write such files on purpose, and load them.
OF_OTHER_PROGRAMS = (FormatRule.NAME, FormatRule.DIMS, FormatRule.TYPE)
# The keys and tensors of such files are copied as they are.
COPYABLE = (*OF_OTHER_PROGRAMS, FormatRule.EMPTY_KEY, FormatRule.NESTED, FormatRule.OFFSET)
# What a file lacks if it is not complete.
INCOMPLETE = (FormatRule.CUT, FormatRule.PARTS)

WRITTEN_SO = "it was written so by the program that made it; llama.cpp does not load it"


@dataclass(frozen=True)
class BrokenRule:
    """A rule that a file breaks.

    Attributes:
        rule: Which one.
        error: What is wrong at the first place.
        names: The tensors, keys or files where it is broken, at least one.
    """

    rule: FormatRule
    error: ForgeError
    names: tuple[str, ...]

    def everywhere(self) -> ForgeError:
        """The error at the first place, which also names others."""
        error, others = self.error, self.names[1:]
        if not others or self.rule is FormatRule.PARTS:  # its error names them all
            return error
        if self.rule is FormatRule.CUT:  # the tensors from one place on
            more = f"the file lacks {len(self.names)} tensors or parts of them, from {self.names[0]} to {others[-1]}"
        else:
            shown = ", ".join(others[:_MOST_NAMES]) + (", ..." if len(others) > _MOST_NAMES else "")
            more = f"so it is with {len(others)} more: {shown}"
        problem = f"{error.words.problem}; {more}"
        return type(error)(problem, file=error.file, tensor=error.tensor, hint=error.words.hint)


@dataclass
class BrokenRules:
    """The rules that are found to be broken while a header is read, each once."""

    _found: dict[FormatRule, tuple[ForgeError, list[str]]] = field(default_factory=dict)

    def note(self, rule: FormatRule, error: ForgeError, name: str) -> None:
        self._found.setdefault(rule, (error, []))[1].append(name)

    def all(self) -> tuple[BrokenRule, ...]:
        return tuple(BrokenRule(rule, error, tuple(names)) for rule, (error, names) in self._found.items())


def refuse(broken: Collection[BrokenRule], *, but: Collection[FormatRule] = ()) -> None:
    """Raises the error of the first broken rule that is not among `but`."""
    for each in broken:
        if each.rule not in but:
            raise each.everywhere()
