"""The largest size of each kind of file that is read whole. SECURITY.md has this table for users."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

_MIB = 1 << 20


@dataclass(frozen=True)
class FileLimit:
    """The largest size of one kind of file.

    Attributes:
        kind: What the files are.
        names: Patterns of their names.
        nbytes: The largest size in bytes. Real files stay far below it.
        largest: The size of the largest real files.
    """

    kind: str
    names: tuple[str, ...]
    nbytes: int
    largest: str


# The first pattern that fits counts.
FILE_LIMITS = (
    FileLimit("JSON files of vocabularies", ("tokenizer.json", "tekken.json", "vocab.json"), 96 * _MIB, "35 MB"),
    FileLimit("other vocabularies", ("*.txt", "*.model", "tokenizer.model.*", "*.tiktoken"), 16 * _MIB, "8 MB"),
    FileLimit("lists of shards", ("*.index.json",), 64 * _MIB, "15 MB"),
    FileLimit("plans of jobs", ("plan.json",), 256 * _MIB, "60 MB"),
    FileLimit("chat templates", ("*.jinja",), 4 * _MIB, "0.1 MB"),
    FileLimit("other files that are read whole", ("*",), 8 * _MIB, "4 MB"),
)


def limit_of(name: str) -> int:
    """The largest size of the file with this name, in bytes.

    Example:
        >>> limit_of("config.json") >> 20
        8
    """
    return next(limit.nbytes for limit in FILE_LIMITS if any(fnmatchcase(name, pattern) for pattern in limit.names))
