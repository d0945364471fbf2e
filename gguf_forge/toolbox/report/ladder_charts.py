"""Pictures of weights and the levels they were rounded to, each a pure function of its data."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gguf_forge.toolbox.report import words
from gguf_forge.toolbox.report.data import BlockSize, BlockView, Portrait, Rounding
from gguf_forge.toolbox.report.svg import (
    FULL,
    HALF,
    Scale,
    caption,
    chart,
    circle,
    element,
    guide,
    line,
    number,
    path,
    rect,
    text,
)


def portrait(one: Portrait) -> Markup:
    """A histogram with the levels of a typical block standing in it."""
    height, left, right, bottom, top = 210.0, 8.0, 8.0, 30.0, 22.0
    x = Scale(one.edges[0], one.edges[-1], left, HALF - right)
    most = max(one.counts) or 1
    y = Scale(0, most, height - bottom, top + 10)
    outline = [(x(one.edges[0]), y(0))]
    for n, counted in enumerate(one.counts):
        outline += [(x(one.edges[n]), y(counted)), (x(one.edges[n + 1]), y(counted))]
    outline.append((x(one.edges[-1]), y(0)))
    inside = [level for level in one.levels if one.edges[0] <= level <= one.edges[-1]]
    parts = [path(outline, "hill", closed=True)]
    if len(one.levels) <= 64:
        kind = "level-line" if len(one.levels) <= 20 else "level-line thin"
        parts += [line(x(level), top, x(level), height - bottom, kind) for level in inside]
    if one.levels:
        low, high = x(max(min(one.levels), one.edges[0])), x(min(max(one.levels), one.edges[-1]))
        parts.append(line(low, top, high, top, "bracket"))
        label = f"{len(one.levels)} levels of a typical block"
        parts.append(text(min(max((low + high) / 2, 90), HALF - 90), top - 7, label, "label hot", text_anchor="middle"))
    parts.append(line(left, height - bottom, HALF - right, height - bottom, "axis"))
    parts += [caption(min(max(x(tick), 18), HALF - 18), height - bottom + 17, f"{tick:g}") for tick in x.ticks(6)]
    return chart(HALF, height, f"distribution of the weights of {one.tensor}", *parts)


def rung_bars(rungs: Sequence[float], counts: Sequence[int]) -> Markup:
    """How often each level is used; the first and the last one stand out."""
    height, bottom = 96.0, 18.0
    most, step = max(counts) or 1, HALF / len(counts)
    y = Scale(0, most, height - bottom, 4)
    total = sum(counts) or 1
    parts = []
    for n, counted in enumerate(counts):
        kind = "bar-end" if n in (0, len(counts) - 1) else "bar"
        tip = f"level {rungs[n]:g}\n{words.percent(counted / total)} of the values"
        gap = 1 if step > 5 else 0
        parts.append(rect(n * step + gap, y(counted), step - 2 * gap, y(0) - y(counted), kind, data_tip=tip))
        if len(counts) <= 16:
            parts.append(caption(n * step + step / 2, height - 4, f"{rungs[n]:g}"))
    return chart(HALF, height, "how often each level is used", *parts)


def _ladder(x1: float, x2: float, y: Scale, levels: Sequence[float], used: frozenset[float]) -> list[Markup]:
    return [line(x1, y(v), x2, y(v), "level-used" if v in used else "level") for v in levels if y.low <= v <= y.high]


def _reach(*values: Sequence[float]) -> tuple[float, float]:
    every = [value for some in values for value in some]
    low, high = min(every), max(every)
    margin = (high - low or abs(high) or 1) * 0.06
    return low - margin, high + margin


_ON_A_LINE = {FULL: 256, HALF: 64}  # weights of a block that a chart has room for next to each other


def block(view: BlockView, width: float = FULL) -> Markup:
    """A block: a ladder for each sub-block, weights as dots, and what each of them was rounded to. Narrow charts show
    it in several lines."""
    each = len(view.stored) // len(view.levels)
    on_a_line = max(1, min(_ON_A_LINE[width], len(view.stored)) // each)
    lines = [range(first, min(first + on_a_line, len(view.levels))) for first in range(0, len(view.levels), on_a_line)]
    height = 300.0 if len(lines) == 1 else 190.0
    y = Scale(*_reach(view.stored, view.weights or view.stored, [0.0]), height - 40, 8)
    drawn = [_line_of_block(view, parts, y, width) for parts in lines]
    moved = [
        element("g", *parts, transform=f"translate(0 {number(n * height)})") if n else Markup("").join(parts)
        for n, parts in enumerate(drawn)
    ]
    return chart(width, height * len(lines), f"{view.title} of {view.tensor}", *moved)


def _line_of_block(view: BlockView, shown: range, y: Scale, width: float) -> list[Markup]:
    """Some sub-blocks next to each other."""
    left, right, bottom, top = 62.0, 10.0, y.start, y.stop
    size = len(view.stored) // len(view.levels)
    first, count = shown.start * size, len(shown) * size
    x = Scale(first - 0.5, first + count - 0.5, left, width - right)
    parts = [guide(left, width - right, y(tick), words.weight(tick), left - 6) for tick in y.ticks(5)]
    is_wide = (width - left) / len(shown) > 100
    for n in shown:
        inside = slice(n * size, (n + 1) * size)
        used = frozenset(_nearest(view.levels[n], value) for value in view.stored[inside])
        x1, x2 = x(inside.start - 0.5) + 1.5, x(inside.stop - 0.5) - 1.5
        if n % 2:
            parts.append(rect(x1 - 1.5, top, x2 - x1 + 3, bottom - top, "stripe"))
        if len(view.levels[n]) <= 64:
            parts += _ladder(x1, x2, y, view.levels[n], used)
        if is_wide:
            parts.append(caption((x1 + x2) / 2, bottom + 18, f"step {words.weight(abs(view.steps[n]))}"))
            if any(view.bases):
                parts.append(caption((x1 + x2) / 2, bottom + 32, f"offset {words.weight(view.bases[n])}"))
    if not is_wide:
        label = f"{len(shown)} sets of levels, one for each {size} weights"
        parts.append(caption((left + width - right) / 2, bottom + 24, label))
    parts.append(line(left, y(0), width - right, y(0), "axis"))
    radius = 3.4 if count <= 64 else 2.1
    for n in range(first, first + count):
        stored = view.stored[n]
        if view.weights is None:
            parts.append(circle(x(n), y(stored), radius, "dot"))
            continue
        weight = view.weights[n]
        tip = f"weight {n}: {words.weight(weight)}\nstored as {words.weight(stored)}"
        parts.append(line(x(n), y(weight), x(n), y(stored), "stem"))
        parts.append(circle(x(n), y(weight), radius, "dot", data_tip=tip))
    return parts


def _nearest(levels: Sequence[float], value: float) -> float:
    return min(levels, key=lambda level: abs(level - value))


def ladder_panel(
    weights: Sequence[float], rounding: Rounding, reach: tuple[float, float], marked: int | None = None
) -> Markup:
    """The same few weights on the ladder of one type."""
    width, height, left, right = 250.0, 250.0, 8.0, 8.0
    y = Scale(*reach, height - 8, 8)
    x = Scale(0, len(weights) - 1, left + 26, width - right - 6)
    used = frozenset(_nearest(rounding.levels, value) for value in rounding.stored)
    parts = _ladder(left + 14, width - right, y, rounding.levels, used)
    parts.append(line(left, y(0), width - right, y(0), "axis"))
    parts.append(text(left - 4, y(0) - 4, "0", "label small"))
    for n, (weight, stored) in enumerate(zip(weights, rounding.stored, strict=True)):
        parts.append(line(x(n), y(weight), x(n), y(stored), "stem"))
        tip = f"{words.weight(weight)}\nstored as {words.weight(stored)}"
        parts.append(
            circle(x(n), y(weight), 4.6 if n == marked else 3, "dot-marked" if n == marked else "dot", data_tip=tip)
        )
    return chart(
        width, height, f"{len(weights)} weights on the levels of {rounding.type}", *parts, class_="chart panel"
    )


def ladder_reach(weights: Sequence[float], roundings: Sequence[Rounding]) -> tuple[float, float]:
    """What panels that are compared all show: every weight and every level, but no far-off ladder ends."""
    low, high = _reach(weights, [0.0])
    spread = high - low
    levels = [level for one in roundings for level in one.levels if low - spread / 2 <= level <= high + spread / 2]
    return _reach(weights, [0.0], levels)


def one_ladder_or_many(lesson: BlockSize, width: float = FULL) -> Markup:
    """256 weights: above with one ladder, below with one for each 32."""
    panel, gap, left, right = 170.0, 26.0, 8.0, 8.0
    low, high = _reach(lesson.weights)
    x = Scale(-0.5, len(lesson.weights) - 0.5, left, width - right)
    radius = 1.9 if width == FULL else 1.3
    parts = []
    for n, (title, ladders) in enumerate(
        (("the same levels for all 256", (lesson.large,)), ("levels for each 32", lesson.small))
    ):
        top = n * (panel + gap) + 20
        y = Scale(low, high, top + panel - 8, top)
        size = len(lesson.weights) // len(ladders)
        error = lesson.relative_small if n else lesson.relative_large
        parts.append(text(left, top - 6, f"{title}: error {words.percent(error)}", "label strong"))
        for part, levels in enumerate(ladders):
            x1, x2 = x(part * size - 0.5) + 1, x((part + 1) * size - 0.5) - 1
            parts += [line(x1, y(level), x2, y(level), "level-used") for level in levels]
        parts += [circle(x(at), y(weight), radius, "dot") for at, weight in enumerate(lesson.weights)]
    return chart(width, 2 * (panel + gap), "256 weights with the same levels, and with levels for each 32", *parts)
