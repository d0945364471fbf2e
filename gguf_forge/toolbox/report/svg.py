"""SVG as text: elements, numbers and scales. All text that is not `Markup` is made harmless."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup, escape

from gguf_forge.foreign_text import escaped

Attribute = str | float | None

_KEPT = "\n\N{NO-BREAK SPACE}"  # the page's own words have these

# The widths of charts: of the page, and of half of it, which is also the width of a phone.
FULL = 1080.0
HALF = 420.0
_CLASSES = {FULL: "chart wide", HALF: "chart half"}


def element(name: str, *children: object, **attributes: Attribute) -> Markup:
    """An XML element. `class_` is class, `stroke_width` is stroke-width; an attribute that is None is left out.

    Example:
        >>> element("text", "a < b", x=1 / 3, class_="name")
        Markup('<text x="0.33" class="name">a &lt; b</text>')
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(map(words_of, children))
    return Markup(f"<{name}{given}>{inside}</{name}>") if inside else Markup(f"<{name}{given}/>")


def _attribute(value: str | float) -> Markup:
    return words_of(value) if isinstance(value, str) else Markup(number(value))


def words_of(value: object) -> Markup:
    """Anything as text of a page: `Markup` as it is, and other text without what would act in a page.

    Example:
        >>> words_of("<b>\\u202e")
        Markup('&lt;b&gt;\\\\u202e')
    """
    return value if isinstance(value, Markup) else escape(escaped(str(value), keep=_KEPT))


def number(value: float) -> str:
    """A coordinate with at most two decimals, because a hundredth of a pixel is precise enough.

    Example:
        >>> number(2.0), number(1 / 3), number(-0.001)
        ('2', '0.33', '0')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def chart(width: float, height: float, label: str, *children: object, class_: str | None = None) -> Markup:
    """A picture with a description for those who do not see it. Its class is that of its width, unless one is given."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=label,
        class_=class_ or _CLASSES.get(width, "chart"),
        width=width,
        height=height,
    )


def text(x: float, y: float, words: object, class_: str = "label", **attributes: Attribute) -> Markup:
    return element("text", words, x=x, y=y, class_=class_, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str, **attributes: Attribute) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, **attributes)


def rect(x: float, y: float, width: float, height: float, class_: str, **attributes: Attribute) -> Markup:
    return element("rect", x=x, y=y, width=max(width, 0), height=max(height, 0), class_=class_, **attributes)


def circle(x: float, y: float, radius: float, class_: str, **attributes: Attribute) -> Markup:
    return element("circle", cx=x, cy=y, r=radius, class_=class_, **attributes)


def path(points: Iterable[tuple[float, float]], class_: str, *, closed: bool = False) -> Markup:
    """A line through points."""
    steps = " L".join(f"{number(x)} {number(y)}" for x, y in points)
    return element("path", d=f"M{steps}{' Z' if closed else ''}", class_=class_)


@dataclass(frozen=True)
class Scale:
    """Maps the numbers `low`..`high` to the places `start`..`stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.stop) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers in the range."""
        return nice_ticks(self.low, self.high, about)


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two numbers.

    Example:
        >>> nice_ticks(0, 1, 5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / max(about, 1)
    magnitude = 10.0 ** floor(log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= raw * 0.999)
    return [round(step * n, 12) for n in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def squarified(sizes: Sequence[float], x: float, y: float, width: float, height: float) -> list[tuple[float, ...]]:
    """Rectangles (x, y, width, height) of these areas, as square as can be, that fill one; sizes in falling order.

    Source: Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).
    """
    total = sum(sizes)
    if total <= 0 or width <= 0 or height <= 0:
        return [(x, y, 0.0, 0.0) for _ in sizes]
    areas = [size * width * height / total for size in sizes]
    placed: list[tuple[float, ...]] = []
    at = 0
    while at < len(areas):
        side = min(width, height)
        stop = at + 1
        while stop < len(areas) and _worst(areas[at : stop + 1], side) <= _worst(areas[at:stop], side):
            stop += 1
        row = areas[at:stop]
        depth = sum(row) / side if side else 0.0
        offset = 0.0
        for area in row:
            extent = area / depth if depth else 0.0
            placed.append((x, y + offset, depth, extent) if width >= height else (x + offset, y, extent, depth))
            offset += extent
        if width >= height:
            x, width = x + depth, max(width - depth, 0.0)
        else:
            y, height = y + depth, max(height - depth, 0.0)
        at = stop
    return placed


def strips(sizes: Sequence[float], x: float, y: float, width: float, height: float) -> list[tuple[float, ...]]:
    """Rectangles (x, y, width, height) of these areas that fill one, in their order: in rows, as text is read.

    Source: Bederson, Shneiderman and Wattenberg, "Ordered and Quantum Treemaps" (2002).
    """
    total = sum(sizes)
    if total <= 0 or width <= 0 or height <= 0:
        return [(x, y, 0.0, 0.0) for _ in sizes]
    areas = [size * width * height / total for size in sizes]
    placed: list[tuple[float, ...]] = []
    for row in _rows(areas, width):
        depth, left = sum(row) / width, x
        for area in row:
            extent = area / depth if depth else 0.0
            placed.append((left, y, extent, depth))
            left += extent
        y += depth
    return placed


_LONGEST_ROW = 48


def _rows(areas: Sequence[float], width: float) -> list[Sequence[float]]:
    """The areas cut into rows whose rectangles are as square as can be: the least sum of their ratios of sides."""
    least = [0.0]  # of the first n areas, and where the last row of the best cut begins
    begins = [0]
    for stop in range(1, len(areas) + 1):
        found = ((least[at] + _ratios(areas[at:stop], width), at) for at in range(max(0, stop - _LONGEST_ROW), stop))
        cost, at = min(found)
        least.append(cost)
        begins.append(at)
    rows: list[Sequence[float]] = []
    stop = len(areas)
    while stop:
        rows.append(areas[begins[stop] : stop])
        stop = begins[stop]
    return rows[::-1]


def _ratios(row: Sequence[float], width: float) -> float:
    """The sum of the ratios of sides that rectangles would have if these areas shared a row; empty ones count 0."""
    square = (sum(row) / width) ** 2
    return sum(max(area / square, square / area) for area in row if area > 0)


def _worst(row: Sequence[float], side: float) -> float:
    """The greatest ratio of sides that the rectangles would have if these areas shared a row along `side`."""
    total, least = sum(row), min(row)
    if total <= 0 or least <= 0 or side <= 0:
        return float("inf")
    return max(side * side * max(row) / total**2, total**2 / (side * side * least))


def guide(left: float, right: float, y: float, label: str, at: float) -> Markup:
    """A horizontal line of the grid with its number."""
    return line(left, y, right, y, "grid") + text(at, y + 4, label, "label small", text_anchor="end")


def caption(x: float, y: float, label: str, class_: str = "label small") -> Markup:
    """Words centred under something."""
    return text(x, y, label, class_, text_anchor="middle")


def mark(x: float, y: float, top: float, label: str) -> Markup:
    """A vertical line of the grid with its number."""
    return line(x, top, x, y, "grid") + caption(x, y + 16, label)
