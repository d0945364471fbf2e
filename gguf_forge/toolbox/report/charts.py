"""The pictures of a report, each a pure function of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, log10

from markupsafe import Markup

from gguf_forge.toolbox.report import words
from gguf_forge.toolbox.report.data import (
    Alternative,
    BlockSize,
    BlockView,
    Outlier,
    Portrait,
    Rounding,
    SizeCost,
    Tensor,
)
from gguf_forge.toolbox.report.svg import (
    Scale,
    chart,
    circle,
    element,
    line,
    nice_ticks,
    number,
    path,
    rect,
    squarified,
    text,
)

FULL = 1080.0
HALF = 420.0

Colours = Mapping[str, str]  # the class of each type
Stack = Mapping[str, int]  # the bytes of each type, few bits first

_CHAR = 6.3  # width of a letter of a label
_FEW_LAYERS = 16


def bit_ruler(bits: float) -> Markup:
    """A square for each bit of a 16-bit weight (32-bit, if need be), as many of them filled as are left."""
    total = 16 if bits < 16.5 else 32
    side, gap = (20.0, 4.0) if total == 16 else (9.0, 3.0)
    cells = []
    for n in range(total):
        x = n * (side + gap)
        cells.append(rect(x, 0, side, side, "bit-empty", rx=3))
        cells.append(rect(x, 0, side * min(max(bits - n, 0), 1), side, "bit-full", rx=3))
    label = f"{words.bits(bits)} of {total} bits for each weight"
    return chart(total * (side + gap) - gap, side, label, *cells, class_="ruler")


PALETTE = ("t1", "t2", "t3", "t4", "t5", "t6", "t8")
_MOST_BITS = (2, 3, 4, 5, 6, 7, 10)


def type_class(bits: float) -> str:
    """The colour of a type, by its bits for each weight."""
    found = (name for most, name in zip(_MOST_BITS, PALETTE, strict=True) if bits < most)
    return next(found, "t16" if bits < 17 else "t32")


def paint(types: Mapping[str, float]) -> dict[str, str]:
    """Colours for the types of a file, in the order of their bits: each has its own, as far as there are enough."""
    chosen: dict[str, str] = {}
    packed = sorted((bits, name) for name, bits in types.items() if bits < _MOST_BITS[-1])
    for left, (bits, name) in zip(range(len(packed), 0, -1), packed, strict=True):
        usual = PALETTE.index(type_class(bits))
        after = max((PALETTE.index(colour) + 1 for colour in chosen.values()), default=0)
        chosen[name] = PALETTE[min(max(min(usual, len(PALETTE) - left), after), len(PALETTE) - 1)]
    return {name: chosen.get(name, type_class(bits)) for name, bits in types.items()}


def type_bar(rows: Sequence[tuple[str, float, int, int]], colours: Colours) -> Markup:
    """One bar of the file's bytes, as wide as there is room: (type, bits for each weight, bytes, tensors)."""
    total = sum(nbytes for _, _, nbytes, _ in rows) or 1
    at, parts = 0.0, []
    for name, _, nbytes, _ in rows:
        share = 100 * nbytes / total
        tip = f"{name}\n{words.size(nbytes)}, {words.percent(nbytes / total)} of the tensors' bytes"
        place = {"x": f"{number(at)}%", "width": f"{number(share)}%"}
        parts.append(element("rect", y=0, height=46, class_=f"{colours[name]} gap", data_tip=tip, **place))
        if share > 12:
            parts.append(element("text", name, x=f"{number(at + 1.2)}%", y=28, class_="on-color strong"))
        at += share
    label = "the share of each type in the bytes"
    return element("svg", *parts, role="img", aria_label=label, class_="strip", width="100%", height=46)


def treemap(tensors: Sequence[Tensor], colours: Colours) -> Markup:
    """Every tensor as an area, those of a layer together."""
    height = 430.0
    groups: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(f"layer {tensor.layer}" if tensor.layer is not None else tensor.role, []).append(tensor)
    ordered = sorted(groups.items(), key=lambda item: -sum(t.nbytes for t in item[1]))
    boxes = squarified([sum(t.nbytes for t in members) for _, members in ordered], 0, 0, FULL, height)
    parts = []
    for (name, members), (x, y, w, h) in zip(ordered, boxes, strict=True):
        members = sorted(members, key=lambda t: -t.nbytes)
        head = 15.0 if w > len(name) * _CHAR + 8 and h > 46 and members[0].layer is not None else 0.0
        if head:
            parts.append(text(x + 3, y + 12, name, "label small"))
        cells = squarified([t.nbytes for t in members], x + 1.5, y + 1.5 + head, w - 3, h - 3 - head)
        parts += [_cell(tensor, colours[tensor.type], *cell) for tensor, cell in zip(members, cells, strict=True)]
    return chart(FULL, height, "every tensor as an area", *parts, class_="chart wide")


def _cell(tensor: Tensor, colour: str, x: float, y: float, w: float, h: float) -> Markup:
    tip = f"{tensor.name}\n{shape_text(tensor.shape)} · {tensor.type}\n{words.size(tensor.nbytes)}"
    box = rect(x + 0.5, y + 0.5, w - 1, h - 1, colour, rx=2, data_tip=tip)
    if w < len(tensor.role) * _CHAR + 8 or h < 17:
        return box
    words_in = [text(x + 5, y + 14, tensor.role, "on-color")]
    if h > 34 and w > len(tensor.type) * _CHAR + 8:
        words_in.append(text(x + 5, y + 28, tensor.type, "on-color faint"))
    return box + Markup("").join(words_in)


def shape_text(shape: Sequence[int]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(f"{n:,}" for n in shape)


def layer_columns(layers: Sequence[tuple[str, Stack]], colours: Colours) -> Markup:
    """A column for each layer: its bytes, by type."""
    height, bottom, left = 240.0, 26.0, 66.0
    width, kind = (HALF, "chart half") if len(layers) <= _FEW_LAYERS else (FULL, "chart wide")
    most = max((sum(stack.values()) for _, stack in layers), default=1) or 1
    y = Scale(0, most * 1.04, height - bottom, 6)
    step = (width - left) / max(len(layers), 1)
    parts = [_guide(left, width, y(tick), words.size(tick) if tick else "0", left - 8) for tick in y.ticks(4)]
    every = max(1, round(26 / step + 0.49))
    gap = min(step * 0.1, 3)
    for n, (name, stack) in enumerate(layers):
        below, x = 0.0, left + n * step
        for name_of_type, nbytes in stack.items():
            top = y(below + nbytes)
            tip = f"layer {name}\n{name_of_type}: {words.size(nbytes)}"
            parts.append(rect(x + gap, top, step - 2 * gap, y(below) - top, colours[name_of_type], data_tip=tip))
            below += nbytes
        if n % every == 0:
            parts.append(_below(x + step / 2, height - 9, name))
    return chart(width, height, "bytes of each layer", *parts, class_=kind)


def role_bars(roles: Sequence[tuple[str, Stack]], colours: Colours) -> Markup:
    """A bar for each role: the bytes of all layers, by type."""
    row, left, right = 24.0, 130.0, 58.0
    total = sum(n for _, stack in roles for n in stack.values()) or 1
    x = Scale(0, max((sum(stack.values()) for _, stack in roles), default=1), left, HALF - right)
    parts = []
    for n, (role, stack) in enumerate(roles):
        top, before = n * row, 0.0
        parts.append(text(left - 8, top + 15, cut(role, 19), "label", text_anchor="end"))
        for kind, nbytes in stack.items():
            tip = f"{role}\n{kind}: {words.size(nbytes)}"
            start, stop = x(before), x(before + nbytes)
            parts.append(rect(start, top + 3, stop - start, row - 7, colours[kind], data_tip=tip))
            before += nbytes
        parts.append(text(x(before) + 6, top + 15, words.percent(before / total), "label small"))
    return chart(HALF, max(len(roles), 1) * row, "bytes of each role", *parts, class_="chart half")


def cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _guide(left: float, right: float, y: float, label: str, at: float) -> Markup:
    """A horizontal line of the grid with its number."""
    return line(left, y, right, y, "grid") + text(at, y + 4, label, "label small", text_anchor="end")


def _below(x: float, y: float, label: str, class_: str = "label small") -> Markup:
    """Words centred under something."""
    return text(x, y, label, class_, text_anchor="middle")


def _tick(x: float, y: float, top: float, label: str) -> Markup:
    """A vertical line of the grid with its number."""
    return line(x, top, x, y, "grid") + _below(x, y + 16, label)


def error_by_bits(tensors: Sequence[Tensor], colours: Colours) -> Markup:
    """Every rounded matrix: its bits for each weight, and how far it is above the noise."""
    height, left, right, bottom, top = 330.0, 52.0, 16.0, 44.0, 14.0
    shown = [(t, t.error.snr_db) for t in tensors if t.error and t.error.snr_db is not None and len(t.shape) > 1]
    ratios = [snr for _, snr in shown] or [0.0]
    bits = [t.bits_per_weight for t, _ in shown] or [4.0]
    x = Scale(min(bits) - 0.6, max(bits) + 0.6, left, HALF - right)
    y = Scale(min(ratios) - 3, max(ratios) + 3, height - bottom, top)
    parts = [_guide(left, HALF - right, y(tick), f"{tick:g} dB", left - 6) for tick in y.ticks(6)]
    parts += [_tick(x(tick), height - bottom, top, f"{tick:g}") for tick in x.ticks(6)]
    largest = max((t.parameters for t, _ in shown), default=1)
    for tensor, snr in sorted(shown, key=lambda pair: -pair[0].parameters):
        tip = f"{tensor.name}\n{tensor.type}: {words.decibels(snr)}"
        radius = 3 + 6 * (tensor.parameters / largest) ** 0.5
        spread = (hash_share(tensor.name) - 0.5) * 0.22
        dot = circle(
            x(tensor.bits_per_weight + spread),
            y(snr),
            radius,
            f"{colours[tensor.type]} bubble",
            data_tip=tip,
        )
        parts.append(dot)
    parts.append(_rule_of_six(x, y, min(bits), sum(ratios) / len(ratios), sum(bits) / len(bits)))
    parts.append(_below((left + HALF - right) / 2, height - 6, "bits for each weight"))
    return chart(HALF, height, "signal to noise against bits for each weight", *parts, class_="chart half")


def hash_share(name: str) -> float:
    """A number from 0 to 1 that is always the same for a name: spreads dots that would lie on each other."""
    value = 0
    for char in name:
        value = (value * 31 + ord(char)) % 9973
    return value / 9972


def _rule_of_six(x: Scale, y: Scale, bits: float, ratio: float, at: float) -> Markup:
    """The line along which a bit more is worth 6.02 dB, through the mean of the dots."""
    ends = []
    for there in (x.low, x.high):
        level = ratio + 6.02 * (there - at)
        clipped = min(max(level, y.low), y.high)
        ends.append((x(at + (clipped - ratio) / 6.02), y(clipped)))
    return path(ends, "rule") + text(ends[0][0] + 18, ends[0][1] - 1, "6 dB a bit", "label small")


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
    parts += [_below(min(max(x(tick), 18), HALF - 18), height - bottom + 17, f"{tick:g}") for tick in x.ticks(6)]
    return chart(HALF, height, f"distribution of the weights of {one.tensor}", *parts, class_="chart half")


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
            parts.append(_below(n * step + step / 2, height - 4, f"{rungs[n]:g}"))
    return chart(HALF, height, "how often each level is used", *parts, class_="chart half")


def _ladder(x1: float, x2: float, y: Scale, levels: Sequence[float], used: frozenset[float]) -> list[Markup]:
    return [line(x1, y(v), x2, y(v), "level-used" if v in used else "level") for v in levels if y.low <= v <= y.high]


def _reach(*values: Sequence[float]) -> tuple[float, float]:
    every = [value for some in values for value in some]
    low, high = min(every), max(every)
    margin = (high - low or abs(high) or 1) * 0.06
    return low - margin, high + margin


def block(view: BlockView) -> Markup:
    """A block: a ladder for each sub-block, weights as dots, and what each of them was rounded to."""
    height, left, right, bottom, top = 300.0, 62.0, 10.0, 40.0, 8.0
    count = len(view.stored)
    low, high = _reach(view.stored, view.weights or view.stored, [0.0])
    x = Scale(-0.5, count - 0.5, left, FULL - right)
    y = Scale(low, high, height - bottom, top)
    size = count // len(view.levels)
    parts = [_guide(left, FULL - right, y(tick), words.weight(tick), left - 6) for tick in y.ticks(5)]
    for n, levels in enumerate(view.levels):
        first = n * size
        used = frozenset(_nearest(levels, value) for value in view.stored[first : first + size])
        x1, x2 = x(first - 0.5) + 1.5, x(first + size - 0.5) - 1.5
        if n % 2:
            parts.append(rect(x1 - 1.5, top, x2 - x1 + 3, height - bottom - top, "stripe"))
        if len(levels) <= 64:
            parts += _ladder(x1, x2, y, levels, used)
        if len(view.levels) <= 8:
            parts.append(
                text(
                    (x1 + x2) / 2,
                    height - 22,
                    f"step {words.weight(abs(view.steps[n]))}",
                    "label small",
                    text_anchor="middle",
                )
            )
            if any(view.bases):
                parts.append(
                    text(
                        (x1 + x2) / 2,
                        height - 8,
                        f"offset {words.weight(view.bases[n])}",
                        "label small",
                        text_anchor="middle",
                    )
                )
    if len(view.levels) > 8:
        parts.append(
            text(
                (left + FULL - right) / 2,
                height - 12,
                f"{len(view.levels)} ladders, one for each {size} weights",
                "label small",
                text_anchor="middle",
            )
        )
    parts.append(line(left, y(0), FULL - right, y(0), "axis"))
    radius = 3.4 if count <= 64 else 2.1
    for n, stored in enumerate(view.stored):
        if view.weights is None:
            parts.append(circle(x(n), y(stored), radius, "dot"))
            continue
        weight = view.weights[n]
        tip = f"weight {n}: {words.weight(weight)}\nstored as {words.weight(stored)}"
        parts.append(line(x(n), y(weight), x(n), y(stored), "stem"))
        parts.append(circle(x(n), y(weight), radius, "dot", data_tip=tip))
    return chart(FULL, height, f"{view.title} of {view.tensor}", *parts, class_="chart wide")


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


def one_ladder_or_many(lesson: BlockSize) -> Markup:
    """256 weights: above with one ladder, below with one for each 32."""
    panel, gap, left, right = 170.0, 26.0, 8.0, 8.0
    low, high = _reach(lesson.weights)
    x = Scale(-0.5, len(lesson.weights) - 0.5, left, FULL - right)
    parts = []
    for n, (title, ladders) in enumerate(
        (("one ladder for all 256", (lesson.large,)), ("a ladder for each 32", lesson.small))
    ):
        top = n * (panel + gap) + 20
        y = Scale(low, high, top + panel - 8, top)
        size = len(lesson.weights) // len(ladders)
        error = lesson.relative_small if n else lesson.relative_large
        parts.append(text(left, top - 6, f"{title}: error {words.percent(error)}", "label strong"))
        for part, levels in enumerate(ladders):
            x1, x2 = x(part * size - 0.5) + 1, x((part + 1) * size - 0.5) - 1
            parts += [line(x1, y(level), x2, y(level), "level-used") for level in levels]
        parts += [circle(x(at), y(weight), 1.9, "dot") for at, weight in enumerate(lesson.weights)]
    return chart(
        FULL, 2 * (panel + gap), "256 weights with one ladder, and with one for each 32", *parts, class_="chart wide"
    )


def error_by_size(costs: Sequence[SizeCost]) -> Markup:
    """What larger blocks save in bits and cost in error."""
    height, left, right, bottom, top = 250.0, 52.0, 16.0, 58.0, 14.0
    x = Scale(0, len(costs) - 1, left + 24, HALF - right - 24)
    y = Scale(0, max(cost.relative for cost in costs) * 1.15, height - bottom, top)
    parts = [_guide(left, HALF - right, y(tick), words.percent(tick), left - 6) for tick in y.ticks(4)]
    points = [(x(n), y(cost.relative)) for n, cost in enumerate(costs)]
    parts.append(path(points, "curve"))
    for (px, py), cost in zip(points, costs, strict=True):
        tip = f"blocks of {cost.size}\nerror {words.percent(cost.relative)}, {words.bits(cost.bits_per_weight)} bits"
        parts.append(circle(px, py, 5, "dot-hot", data_tip=tip))
        parts.append(_below(px, py - 11, words.percent(cost.relative)))
        parts.append(text(px, height - bottom + 18, str(cost.size), "label strong", text_anchor="middle"))
        parts.append(
            text(
                px,
                height - bottom + 34,
                f"{words.bits(cost.bits_per_weight)} bits",
                "label small",
                text_anchor="middle",
            )
        )
    parts.append(_below((left + HALF - right) / 2, height - 6, "weights that share a ladder"))
    return chart(HALF, height, "error by block size", *parts, class_="chart half")


def outlier_cloud(lesson: Outlier) -> Markup:
    """Blocks by how far their largest weight stands out, and how much they lost."""
    height, left, right, bottom, top = 250.0, 48.0, 16.0, 44.0, 14.0
    heights, errors = [x for x, _ in lesson.cloud] or [1.0], [y for _, y in lesson.cloud] or [0.1]
    x = Scale(1, max(heights) * 1.04, left, HALF - right)
    y = Scale(0, max(errors) * 1.1 or 1, height - bottom, top)
    parts = [_guide(left, HALF - right, y(tick), words.percent(tick), left - 6) for tick in y.ticks(4)]
    parts += [_tick(x(tick), height - bottom, top, f"{tick:g}") for tick in x.ticks(5)]
    parts += [circle(x(a), y(b), 2.6, "dot-soft") for a, b in lesson.cloud]
    label = "largest weight of the block, in RMS of all its weights"
    parts.append(_below((left + HALF - right) / 2, height - 6, label))
    return chart(HALF, height, "error of blocks by their largest weight", *parts, class_="chart half")


def alternatives(found: Sequence[Alternative], colours: Colours) -> Markup:
    """Signal to noise of every type on the same weights; those of the file stand out."""
    height, left, right, bottom, top = 380.0, 52.0, 60.0, 44.0, 14.0
    points = [(one, -20 * log10(one.relative)) for one in found if one.relative > 0]
    x = Scale(
        min(o.bits_per_weight for o, _ in points) - 0.3,
        max(o.bits_per_weight for o, _ in points) + 0.3,
        left,
        FULL - right,
    )
    y = Scale(min(r for _, r in points) - 2, max(r for _, r in points) + 3, height - bottom, top)
    parts = [_guide(left, FULL - right, y(tick), f"{tick:g} dB", left - 6) for tick in y.ticks(7)]
    parts += [_tick(x(tick), height - bottom, top, f"{tick:g}") for tick in nice_ticks(x.low, x.high, 8)]
    parts.append(path([(x(o.bits_per_weight), y(r)) for o, r in _frontier(points)], "curve"))
    columns: dict[float, list[tuple[Alternative, float]]] = {}
    for one, ratio in sorted(points, key=lambda pair: -pair[1]):
        columns.setdefault(x(one.bits_per_weight), []).append((one, ratio))
    for px, members in columns.items():
        to_left = any(0 < other - px < 70 for other in columns)
        label_y = -inf
        for one, ratio in members:
            py, mine = y(ratio), one.type in colours
            label_y = max(py + 4, label_y + 15)
            edge = px - 13 if to_left else px + 13
            if label_y > py + 6:
                parts.append(line(px, py, edge + (2 if to_left else -2), label_y - 4, "leader"))
            tip = f"{one.type}\n{words.bits(one.bits_per_weight)} bits, error {words.percent(one.relative)}"
            look = f"{colours.get(one.type, type_class(one.bits_per_weight))} bubble{' own' if mine else ''}"
            parts.append(circle(px, py, 6.5 if mine else 5, look, data_tip=tip))
            anchor = "end" if to_left else None
            parts.append(text(edge, label_y, one.type, "label strong" if mine else "label", text_anchor=anchor))
    parts.append(_below((left + FULL - right) / 2, height - 6, "bits for each weight"))
    return chart(FULL, height, "signal to noise of every type", *parts, class_="chart wide")


def _frontier(points: Sequence[tuple[Alternative, float]]) -> list[tuple[Alternative, float]]:
    """Those that no other type beats with as many bits or fewer."""
    best: list[tuple[Alternative, float]] = []
    for one, ratio in sorted(points, key=lambda pair: (pair[0].bits_per_weight, -pair[1])):
        if not best or ratio > best[-1][1]:
            best.append((one, ratio))
    return best
