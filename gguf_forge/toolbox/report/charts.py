"""The pictures of whole files and of types, each a pure function of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from math import log10
from typing import NamedTuple

from markupsafe import Markup

from gguf_forge.toolbox.report import words
from gguf_forge.toolbox.report.data import Alternative, Outlier, SizeCost, Tensor
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
    mark,
    nice_ticks,
    number,
    path,
    rect,
    squarified,
    strips,
    text,
)

Colours = Mapping[str, str]  # the class of each type
TypeBytes = Mapping[str, int]  # the bytes of each type, few bits first

_CHAR = 6.3  # width of a letter of a label


def bit_ruler(bits: float) -> Markup:
    """A square for each bit of a 16-bit weight, or of a 32-bit one if needed. Filled squares are bits that remain."""
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


def treemap(tensors: Sequence[Tensor], colours: Colours, width: float = FULL) -> Markup:
    """Every tensor as an area, those of a layer together: first those outside the layers, then layer after layer."""
    height = 430.0 if width == FULL else 560.0
    groups: dict[str, list[tuple[int, Tensor]]] = {}
    for at, tensor in enumerate(tensors):
        name = f"layer {tensor.layer}" if tensor.layer is not None else tensor.role
        groups.setdefault(name, []).append((at, tensor))
    ordered = sorted(groups.items(), key=lambda group: -1 if (n := group[1][0][1].layer) is None else n)
    boxes = strips([sum(tensor.nbytes for _, tensor in members) for _, members in ordered], 0, 0, width, height)
    parts = []
    for (name, group), (x, y, w, h) in zip(ordered, boxes, strict=True):
        members = sorted(group, key=lambda member: -member[1].nbytes)
        head = 15.0 if w > len(name) * _CHAR + 8 and h > 46 and members[0][1].layer is not None else 0.0
        if head:
            parts.append(text(x + 3, y + 12, name, "label small"))
        cells = squarified([tensor.nbytes for _, tensor in members], x + 1.5, y + 1.5 + head, w - 3, h - 3 - head)
        for (at, tensor), cell in zip(members, cells, strict=True):
            parts.append(_cell(tensor, at, colours[tensor.type], *cell))
    return chart(width, height, "every tensor as an area", *parts)


def _cell(tensor: Tensor, at: int, colour: str, x: float, y: float, w: float, h: float) -> Markup:
    box = rect(x + 0.5, y + 0.5, w - 1, h - 1, colour, rx=2, data_of=at)
    if w < len(tensor.role) * _CHAR + 8 or h < 17:
        return box
    words_in = [text(x + 5, y + 14, tensor.role, "on-color")]
    if h > 34 and w > len(tensor.type) * _CHAR + 8:
        words_in.append(text(x + 5, y + 28, tensor.type, "on-color faint"))
    return box + Markup("").join(words_in)


def shape_text(shape: Sequence[int]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(f"{n:,}" for n in shape)


def layer_columns(layers: Sequence[tuple[str, TypeBytes]], colours: Colours, width: float = FULL) -> Markup:
    """A column for each layer: its bytes, by type."""
    height, bottom, left = 240.0, 26.0, 66.0
    most = max((sum(stack.values()) for _, stack in layers), default=1) or 1
    y = Scale(0, most * 1.04, height - bottom, 6)
    step = (width - left) / max(len(layers), 1)
    parts = [guide(left, width, y(tick), words.size(tick) if tick else "0", left - 8) for tick in y.ticks(4)]
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
            parts.append(caption(x + step / 2, height - 9, name))
    return chart(width, height, "bytes of each layer", *parts)


def role_bars(roles: Sequence[tuple[str, TypeBytes]], colours: Colours, width: float = FULL) -> Markup:
    """A bar for each role: the bytes of all layers, by type."""
    row, left, right = 24.0, 130.0, 58.0
    total = sum(n for _, stack in roles for n in stack.values()) or 1
    x = Scale(0, max((sum(stack.values()) for _, stack in roles), default=1), left, width - right)
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
    return chart(width, max(len(roles), 1) * row, "bytes of each role", *parts)


def cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def error_by_bits(tensors: Sequence[Tensor], colours: Colours, width: float = FULL) -> Markup:
    """Every rounded matrix: its bits for each weight, and how far it is above the noise."""
    height, left, right, bottom, top = 330.0, 52.0, 16.0, 44.0, 14.0
    shown = [
        (at, tensor, tensor.error.snr_db)
        for at, tensor in enumerate(tensors)
        if tensor.error and tensor.error.snr_db is not None and len(tensor.shape) > 1
    ]
    ratios = [ratio for _, _, ratio in shown] or [0.0]
    bits = [tensor.bits_per_weight for _, tensor, _ in shown] or [4.0]
    x = Scale(min(bits) - 0.6, max(bits) + 0.6, left, width - right)
    y = Scale(min(ratios) - 3, max(ratios) + 3, height - bottom, top)
    parts = [guide(left, width - right, y(tick), f"{tick:g} dB", left - 6) for tick in y.ticks(6)]
    parts += [mark(x(tick), height - bottom, top, f"{tick:g}") for tick in x.ticks(6)]
    largest = max((tensor.parameters for _, tensor, _ in shown), default=1)
    for at, tensor, ratio in sorted(shown, key=lambda one: -one[1].parameters):
        place = x(tensor.bits_per_weight + (hash_share(tensor.name) - 0.5) * 0.22)
        radius = 3 + 6 * (tensor.parameters / largest) ** 0.5
        parts.append(circle(place, y(ratio), radius, f"{colours[tensor.type]} bubble", data_of=at))
    parts.append(_rule_of_six(x, y, sum(ratios) / len(ratios), sum(bits) / len(bits)))
    parts.append(caption((left + width - right) / 2, height - 6, "bits for each weight"))
    return chart(width, height, "signal to noise against bits for each weight", *parts)


def hash_share(name: str) -> float:
    """A number from 0 to 1 that is always the same for a name: spreads dots that would lie on each other."""
    value = 0
    for char in name:
        value = (value * 31 + ord(char)) % 9973
    return value / 9972


def _rule_of_six(x: Scale, y: Scale, ratio: float, at: float) -> Markup:
    """The line along which a bit more is worth 6.02 dB, through the mean of the dots."""
    ends = []
    for there in (x.low, x.high):
        level = ratio + 6.02 * (there - at)
        clipped = min(max(level, y.low), y.high)
        ends.append((x(at + (clipped - ratio) / 6.02), y(clipped)))
    return path(ends, "rule") + text(ends[0][0] + 18, ends[0][1] - 1, "6 dB a bit", "label small")


def error_by_size(costs: Sequence[SizeCost]) -> Markup:
    """What larger blocks save in bits and cost in error."""
    height, left, right, bottom, top = 250.0, 52.0, 16.0, 58.0, 14.0
    x = Scale(0, len(costs) - 1, left + 24, HALF - right - 24)
    y = Scale(0, max(cost.relative for cost in costs) * 1.15, height - bottom, top)
    parts = [guide(left, HALF - right, y(tick), words.percent(tick), left - 6) for tick in y.ticks(4)]
    points = [(x(n), y(cost.relative)) for n, cost in enumerate(costs)]
    parts.append(path(points, "curve"))
    for (px, py), cost in zip(points, costs, strict=True):
        tip = f"blocks of {cost.size}\nerror {words.percent(cost.relative)}, {words.bits(cost.bits_per_weight)} bits"
        parts.append(circle(px, py, 5, "dot-hot", data_tip=tip))
        parts.append(caption(px, py - 11, words.percent(cost.relative)))
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
    parts.append(caption((left + HALF - right) / 2, height - 6, "weights that share their levels"))
    return chart(HALF, height, "error by block size", *parts)


def outlier_cloud(lesson: Outlier) -> Markup:
    """A dot for each block: how large its largest weight is, and the error of the block."""
    height, left, right, bottom, top = 250.0, 48.0, 16.0, 44.0, 14.0
    heights, errors = [x for x, _ in lesson.cloud] or [1.0], [y for _, y in lesson.cloud] or [0.1]
    x = Scale(0, max(heights) * 1.04, left, HALF - right)
    y = Scale(0, max(errors) * 1.1 or 1, height - bottom, top)
    parts = [guide(left, HALF - right, y(tick), words.percent(tick), left - 6) for tick in y.ticks(4)]
    parts += [mark(x(tick), height - bottom, top, f"{tick:g}") for tick in x.ticks(5)]
    parts += [circle(x(a), y(b), 2.6, "dot-soft") for a, b in lesson.cloud]
    label = "largest weight of the block, in RMS of the tensor's weights"
    parts.append(caption((left + HALF - right) / 2, height - 6, label))
    return chart(HALF, height, "error of blocks by their largest weight", *parts)


def alternatives(found: Sequence[Alternative], colours: Colours, width: float = FULL) -> Markup:
    """Signal to noise of every type on the same weights; those of the file stand out."""
    return _map_of_types(found, colours) if width == FULL else _list_of_types(found, colours)


def _list_of_types(found: Sequence[Alternative], colours: Colours) -> Markup:
    """The types as bars below each other, few bits first: for narrow screens, where the names of a map overlap."""
    row, left, right = 24.0, 116.0, 66.0
    ratios = [-20 * log10(one.relative) if one.relative > 0 else 0.0 for one in found]
    x = Scale(0, max(*ratios, 1.0), left, HALF - right)
    parts = []
    for n, (one, ratio) in enumerate(zip(found, ratios, strict=True)):
        top, mine = n * row, one.type in colours
        colour = colours.get(one.type, type_class(one.bits_per_weight))
        bits = words.bits(one.bits_per_weight)
        parts.append(text(0, top + 16, starred(one), "label strong" if mine else "label"))
        parts.append(text(left - 8, top + 16, bits, "label small", text_anchor="end"))
        look = f"{colour} own" if mine else colour
        parts.append(rect(left, top + 4, x(max(ratio, 0.0)) - left, row - 8, look, rx=2, data_tip=_tip_of(one)))
        parts.append(text(x(max(ratio, 0.0)) + 7, top + 16, words.decibels(ratio), "label small"))
    return chart(HALF, max(len(found), 1) * row, "signal to noise of every type", *parts)


def starred(one: Alternative) -> str:
    """The type's name, with a star if its files need an importance matrix."""
    return f"{one.type}{' *' if one.needs_imatrix else ''}"


def _tip_of(one: Alternative) -> str:
    return f"{one.type}\n{words.bits(one.bits_per_weight)} bits, error {words.percent(one.relative)}"


def _map_of_types(found: Sequence[Alternative], colours: Colours) -> Markup:
    """The types by their bits and their signal to noise."""
    height, left, right, bottom, top = 420.0, 52.0, 60.0, 44.0, 14.0
    points = [(one, -20 * log10(one.relative)) for one in found if one.relative > 0]
    x = Scale(
        min(o.bits_per_weight for o, _ in points) - 0.3,
        max(o.bits_per_weight for o, _ in points) + 0.3,
        left,
        FULL - right,
    )
    y = Scale(min(r for _, r in points) - 2, max(r for _, r in points) + 3, height - bottom, top)
    parts = [guide(left, FULL - right, y(tick), f"{tick:g} dB", left - 6) for tick in y.ticks(7)]
    parts += [mark(x(tick), height - bottom, top, f"{tick:g}") for tick in nice_ticks(x.low, x.high, 8)]
    best = _frontier(points)
    parts.append(path([(x(o.bits_per_weight), y(r)) for o, r in best], "curve"))
    dots = {one: (x(one.bits_per_weight), y(ratio)) for one, ratio in points}
    ordered = sorted(dots, key=lambda one: (one.type not in colours, -dots[one][0]))
    above = {one for one, _ in best}
    for one, label in _labels({one: dots[one] for one in ordered}, above).items():
        (px, py), mine = dots[one], one.type in colours
        if label.is_far:
            parts.append(line(px, py, label.x, label.y - 4, "leader"))
        look = f"{colours.get(one.type, type_class(one.bits_per_weight))} bubble{' own' if mine else ''}"
        parts.append(circle(px, py, 6.5 if mine else 5, look, data_tip=_tip_of(one)))
        kind = "label strong" if mine else "label"
        parts.append(text(label.x, label.y, starred(one), kind, text_anchor=label.anchor))
    parts.append(caption((left + FULL - right) / 2, height - 6, "bits for each weight"))
    return chart(FULL, height, "signal to noise of every type", *parts)


class _Label(NamedTuple):
    """Where a name stands: its base line, and the side that is at x."""

    x: float
    y: float
    anchor: str
    is_far: bool = False

    def box(self, letters: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        width = letters * 7.2
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - 11, left + width, self.y + 3


def _labels(dots: Mapping[Alternative, tuple[float, float]], above: Set[Alternative]) -> dict[Alternative, _Label]:
    """A place for each name that covers no dot and no other name, as far as there is one: those of `above` are above
    their dots if they can be, the others below."""
    taken = [(px - 7, py - 7, px + 7, py + 7) for px, py in dots.values()]
    found = {}
    for one, (px, py) in dots.items():
        places = [_place(px, py, side, far, one in above) for far in range(4) for side in range(4)]
        found[one] = next((place for place in places if _is_free(place.box(len(starred(one))), taken)), places[0])
        taken.append(found[one].box(len(starred(one))))
    return found


def _place(px: float, py: float, side: int, far: int, above: bool) -> _Label:
    """One of the places around a dot: beside it, across and straight, further away with each `far`."""
    up = -1 if above else 1
    anchors = ("end", "middle", "end", "start") if above else ("start", "middle", "start", "end")
    towards = {"start": 1, "middle": 0, "end": -1}[anchors[side]]
    rise = (10 if side == 0 else 16 if side == 1 else 0) + 15 * far
    return _Label(px + 11 * towards, py + 4 + up * rise, anchors[side], far > 0)


def _is_free(box: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]]) -> bool:
    left, top, right, bottom = box
    return not any(left < x2 and x1 < right and top < y2 and y1 < bottom for x1, y1, x2, y2 in taken)


def _frontier(points: Sequence[tuple[Alternative, float]]) -> list[tuple[Alternative, float]]:
    """The types that have less error than every type with the same number of bits or fewer."""
    best: list[tuple[Alternative, float]] = []
    for one, ratio in sorted(points, key=lambda pair: (pair[0].bits_per_weight, -pair[1])):
        if not best or ratio > best[-1][1]:
            best.append((one, ratio))
    return best
