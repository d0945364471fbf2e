"""The layout of lines, facts and tables that all commands share. What is put into them may come from any file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from gguf_forge.foreign_text import escaped

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_UNBOUNDED = 1 << 20
_LEAST_FOLDED = 20  # characters of a column whose text goes on in further lines


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


def table_of(
    *columns: str,
    right: Collection[str] = (),
    folding: Collection[str] = (),
    spare: Sequence[str] = (),
    header_style: str = "bold",
) -> Table:
    """A table without lines and without rows.

    On a narrow terminal, columns are left out or folded, and in the end lines are longer than the terminal is wide.
    The text of the other columns, such as a name, always stays in one piece.

    Args:
        columns: Their titles.
        right: The columns with numbers.
        folding: The columns whose text may go on in a further line.
        spare: The columns that are left out where the width does not suffice, the first of them first.
        header_style: How the titles look.
    """
    make = _fitting_table()
    table = make(spare, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=header_style)
    for name in columns:
        is_number, is_whole = name in right, name not in folding
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_whole)
    return table


@cache
def _fitting_table() -> Callable[..., Table]:
    """The class of tables. It is made when the first table is, as importing rich takes long."""
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Column, Table

    class FittingTable(Table):
        """A table whose cells are texts on one line each, and that fits a terminal as `table_of` says."""

        def __init__(self, spare: Sequence[str], **options: Any):
            super().__init__(**options)
            self.spare = spare

        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*(line(cell) if isinstance(cell, str) else cell for cell in cells), **options)

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            shown, left_out = list(self.columns), []
            for title in self.spare:
                if self._needed(shown, console, options) <= options.max_width:
                    break
                shown = [column for column in shown if column.header != title]
                left_out.append(title)
            table = copy(self)
            table.columns = [replace(column, _index=place) for place, column in enumerate(shown)]
            width = max(options.max_width, self._needed(shown, console, options))
            yield from Table.__rich_console__(table, console, options.update_width(width))
            if left_out:
                yield line((f"a wider terminal also shows: {', '.join(reversed(left_out))}", "dim"))

        def _needed(self, columns: Sequence[Column], console: Console, options: ConsoleOptions) -> int:
            """The least width of these columns."""
            unbounded = options.update_width(_UNBOUNDED)
            widest = (self._measure_column(console, unbounded, column).maximum for column in columns)
            least = (
                width if column.no_wrap else min(width, _LEAST_FOLDED)
                for column, width in zip(columns, widest, strict=True)
            )
            return sum(least)

    return FittingTable
