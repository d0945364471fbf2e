"""The layout of lines, facts and tables that all commands share. What is put into them may come from any file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, TypeAlias

from gguf_forge.foreign_text import escaped

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment
    from rich.text import Text

Cell: TypeAlias = "str | Text"

_GAP = 2  # blanks between columns
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


def duration(seconds: float) -> str:
    """A time as a reader takes it in.

    Example:
        >>> duration(0.34), duration(75), duration(60939)
        ('0.3 s', '1 min 15 s', '16 h 56 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    return f"{round(seconds / 60) // 60} h {round(seconds / 60) % 60} min"


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
    return Table([Column(name, name in right, name in folding) for name in columns], spare, header_style)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its title.
        is_right: Whether its cells end at the same place, as numbers do.
        is_folding: Whether the text of a cell may go on in a further line.
    """

    title: str
    is_right: bool
    is_folding: bool


class Table:
    """Rows of cells below titles, which rich prints.

    rich has tables of its own. They take half a millisecond a row, which is too long for a file of 50,000 tensors.
    """

    def __init__(self, columns: Sequence[Column], spare: Sequence[str], header_style: str):
        self._columns = columns
        self._spare = spare
        self._rows: list[tuple[Sequence[Cell], str]] = [([column.title for column in columns], header_style)]

    def add_row(self, *cells: Cell, style: str = "") -> None:
        """Adds a row of one cell for each column. The style is that of cells without one."""
        escapes = (escaped(cell) if isinstance(cell, str) else cell for cell in cells)
        self._rows.append((tuple(escapes), style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        natural = [max(map(_width, cells)) for cells in zip(*(cells for cells, _ in self._rows), strict=True)]
        shown, left_out = self._fitting(natural, options.max_width)
        widths = self._widths(natural, shown, options.max_width)
        are_right = [self._columns[place].is_right for place in shown]
        for cells, style in self._rows:
            for pieces in _on_lines([cells[place] for place in shown], widths, console):
                yield from _line_of(pieces, widths, are_right, style, console)
        if left_out:
            yield line((f"a wider terminal also shows: {', '.join(reversed(left_out))}", "dim"))

    def _fitting(self, natural: Sequence[int], width: int) -> tuple[Sequence[int], Sequence[str]]:
        """The places of the columns that are shown, and the titles of the others."""
        shown, left_out = list(range(len(self._columns))), list[str]()
        for title in self._spare:
            least = (min(natural[at], _LEAST_FOLDED) if self._columns[at].is_folding else natural[at] for at in shown)
            if sum(least) + _GAP * (len(shown) - 1) <= width:
                break
            shown = [place for place in shown if self._columns[place].title != title]
            left_out.append(title)
        return shown, left_out

    def _widths(self, natural: Sequence[int], shown: Sequence[int], width: int) -> Sequence[int]:
        """The widths of the columns that are shown. Those that fold share the room that the others leave."""
        widths = {place: natural[place] for place in shown}
        folding = sorted((place for place in shown if self._columns[place].is_folding), key=natural.__getitem__)
        room = width - _GAP * (len(shown) - 1) - sum(natural[place] for place in shown if place not in folding)
        for number, place in enumerate(folding):
            widths[place] = min(natural[place], max(_LEAST_FOLDED, room // (len(folding) - number)))
            room -= widths[place]
        return list(widths.values())


def _width(cell: Cell) -> int:
    """The width of a cell on a terminal, in columns of one letter."""
    from rich.cells import cell_len

    text = cell if isinstance(cell, str) else cell.plain
    return len(text) if text.isascii() else cell_len(text)


def _on_lines(cells: Sequence[Cell], widths: Sequence[int], console: Console) -> Iterator[Sequence[Cell]]:
    """The lines of a row. Only a cell that is wider than its column takes more than one."""
    if all(_width(cell) <= width for cell, width in zip(cells, widths, strict=True)):
        yield cells
        return
    texts = [line(cell) if isinstance(cell, str) else cell for cell in cells]
    folded = [text.wrap(console, width, overflow="fold") for text, width in zip(texts, widths, strict=True)]
    for piece in chain.from_iterable(folded):
        piece.rstrip()
    yield from zip_longest(*folded, fillvalue="")


def _line_of(
    cells: Sequence[Cell], widths: Sequence[int], are_right: Sequence[bool], style: str, console: Console
) -> Iterator[Segment]:
    """A line without blanks at its end."""
    from rich.segment import Segment

    look = console.get_style(style)
    blanks = 0
    for cell, width, is_right in zip(cells, widths, are_right, strict=True):
        size = _width(cell)
        if not size:
            blanks += width + _GAP
            continue
        left = width - size if is_right else 0
        yield Segment(" " * (blanks + left))
        yield from [Segment(cell, look)] if isinstance(cell, str) else cell.render(console)
        blanks = width - size - left + _GAP
    yield Segment.line()
