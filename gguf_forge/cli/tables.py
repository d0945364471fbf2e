"""The layout of lines, facts and tables that all commands share. What is put into them may come from any file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from gguf_forge.foreign_text import escaped

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def line(*parts: str | tuple[str, str], no_wrap: bool = False, keep: str = "") -> Text:
    """One line of parts, each a text or a text and its style.

    Args:
        parts: What the line says.
        no_wrap: A long line is left to the terminal, so that a path in it can be copied in one piece.
        keep: Characters that stay, although a terminal acts on them.
    """
    from rich.text import Text

    pairs = (part if isinstance(part, tuple) else (part, "") for part in parts)
    return Text.assemble(*((escaped(text, keep=keep), style) for text, style in pairs), no_wrap=no_wrap)


def lines(every: Iterable[Text], *, no_wrap: bool = False) -> Text:
    """Lines below one another."""
    from rich.text import Text

    joined = Text("\n").join(every)
    joined.no_wrap = no_wrap
    return joined


def facts_text(facts: Mapping[str, str], *, no_wrap: bool = False) -> Text:
    """Facts below one another, their names in a column."""
    width = max(map(len, facts)) + 2
    return lines((line((f"{name:<{width}}", "dim"), fact) for name, fact in facts.items()), no_wrap=no_wrap)


def table_of(*columns: str, right: Collection[str] = (), header_style: str = "bold") -> Table:
    """A table without lines and without rows; the columns in `right` have numbers."""
    table = _one_line_table()(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=header_style)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


@cache
def _one_line_table() -> type[Table]:
    """The class of tables. It is made when the first table is, as importing rich takes long."""
    from rich.table import Table

    class OneLineTable(Table):
        """A table whose cells are texts on one line each."""

        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*(line(cell) if isinstance(cell, str) else cell for cell in cells), **options)

    return OneLineTable
