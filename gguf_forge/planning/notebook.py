"""What Python and notebooks show of planned and written files: a line, or a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


class _Shown(Protocol):
    @property
    def facts(self) -> dict[str, str]:
        """What a table has a column for: name, and the text of a cell."""


T = TypeVar("T", bound=_Shown)


class FileTable(tuple[T, ...]):
    """Planned or written files, which a notebook shows as a table.

    Example:
        >>> FileTable(())
        ()
    """

    __slots__ = ()

    def __new__(cls, files: Iterable[T] = ()) -> FileTable[T]:
        return super().__new__(cls, files)

    def _repr_html_(self) -> str:
        return html_table(file.facts for file in self)


def html_table(rows: Iterable[dict[str, str]]) -> str:
    """A table in HTML, with the names of the first row's cells as its header.

    Example:
        >>> html_table([{"type": "Q8_0"}])
        '<table><tr><th>type</th></tr><tr><td>Q8_0</td></tr></table>'
    """
    import html  # with a table of all entities, which no command needs

    every: Sequence[dict[str, str]] = list(rows)
    header = "".join(f"<th>{html.escape(name)}</th>" for name in (every[0] if every else ()))
    body = ("".join(f"<td>{html.escape(text)}</td>" for text in row.values()) for row in every)
    return f"<table><tr>{header}</tr>" + "".join(f"<tr>{cells}</tr>" for cells in body) + "</table>"


def line(kind: str, facts: dict[str, str]) -> str:
    """Facts on one line, as a `repr`.

    Example:
        >>> line("FilePlan", {"file": "m.gguf", "size": "5 MB"})
        '<FilePlan m.gguf, size 5 MB>'
    """
    first, *others = facts.items()
    return f"<{kind} {first[1]}{''.join(f', {name} {text}' for name, text in others)}>"


def size_text(n_bytes: int) -> str:
    """A number of bytes with three digits, in powers of 1000.

    Example:
        >>> size_text(4_567_890), size_text(12)
        ('4.57 MB', '12 bytes')
    """
    step = 0
    size = float(n_bytes)
    while size >= 999.5 and step < len(_UNITS) - 1:
        size, step = size / 1000, step + 1
    return f"{size:.3g} {_UNITS[step]}"
