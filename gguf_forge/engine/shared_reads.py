"""Which stored bytes several batches read, and an order of the batches in which each byte is read once.

A declaration may cut one tensor into pieces that lie between one another, and some operations read the same bytes for
many rows, such as a factor of an adapter. `storage/read_once.py` keeps such bytes until the other batches have them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby

from gguf_forge.engine.batches import Batch
from gguf_forge.storage.source import ByteRange
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import AlongAxis
from gguf_forge.tensors.stored import stored_in


def read_again(whole: Iterable[Batch]) -> tuple[ByteRange, ...]:
    """The stored bytes that more than one batch may read: ranges that do not overlap, sorted."""
    places = sorted((place for batch in whole for place in _places(batch.expr)), key=_key)
    of_sources = groupby(places, key=lambda place: id(place.source))
    return tuple(shared for _, of_source in of_sources for shared in _overlaps(of_source))


def _overlaps(places: Iterable[ByteRange]) -> Iterator[ByteRange]:
    """The bytes of ranges that overlap, where ranges of one file are sorted by their beginning."""
    several: list[ByteRange] = []
    stop = 0
    for place in places:
        if several and place.offset >= stop:
            yield from _joined(several, stop)
            several = []
        several.append(place)
        stop = max(stop, place.offset + place.nbytes)
    yield from _joined(several, stop)


def _joined(places: Sequence[ByteRange], stop: int) -> Iterator[ByteRange]:
    if len(places) > 1:
        yield places[0]._replace(nbytes=stop - places[0].offset)


def _places(expr: TensorExpr, *, is_scattered: bool = False) -> Iterator[ByteRange]:
    """The bytes that an expression is made of. Those that several of its batches may read come twice."""
    runs = expr.stored_runs(0, expr.n_rows)
    if runs is not None:
        times = 2 if is_scattered and any(stored.reads_gaps for stored in stored_in(expr)) else 1
        yield from times * runs
        return
    is_scattered |= isinstance(expr, AlongAxis) and expr.axis != -1
    for child in (*expr.children(), *expr.reused()):
        yield from _places(child, is_scattered=is_scattered)


def _key(place: ByteRange) -> tuple[int, int]:
    return id(place.source), place.offset


def in_order(
    whole: Iterable[Batch], again: Sequence[ByteRange], cut_one: Callable[[Batch], Iterable[Batch]]
) -> Iterator[Batch]:
    """The batches of a run. Expressions that read the same bytes are made side by side, from the first row to the last.

    Args:
        whole: The expressions, not cut yet.
        again: What more than one of them reads, as `read_again` gives it.
        cut_one: Cuts one expression into its batches.
    """
    for group in _side_by_side(whole, again):
        yield from merge(*map(cut_one, group), key=lambda batch: batch.start / batch.expr.n_rows)


def _side_by_side(whole: Iterable[Batch], again: Sequence[ByteRange]) -> Iterable[Sequence[Batch]]:
    """The expressions in groups that read the same bytes."""
    keys = list(map(_key, again))
    groups: list[list[Batch]] = []
    group_of: dict[int, list[Batch]] = {}
    for batch in whole:
        numbers = {number for place in _places(batch.expr) if (number := _number(place, again, keys)) is not None}
        group = next((group_of[number] for number in numbers if number in group_of), None)
        if group is None:
            groups.append(group := [])
        group.append(batch)
        group_of.update(dict.fromkeys(numbers, group))
    return groups


def _number(place: ByteRange, ranges: Sequence[ByteRange], keys: Sequence[tuple[int, int]]) -> int | None:
    """Which of some sorted ranges has the first byte of a place."""
    number = bisect_right(keys, _key(place)) - 1
    if number < 0 or ranges[number].source is not place.source:
        return None
    return number if place.offset < ranges[number].offset + ranges[number].nbytes else None
