"""The layout of facts and tables that all commands share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def facts_text(facts: Mapping[str, str]) -> Text:
    """Facts below one another, their names in a column."""
    from rich.text import Text

    width = max(map(len, facts)) + 2
    return Text("\n").join(Text.assemble((f"{name:<{width}}", "dim"), fact) for name, fact in facts.items())


def table_of(*columns: str, right: Collection[str] = (), header_style: str = "bold") -> Table:
    """A table without lines and without rows; the columns in `right` have numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=header_style)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table
