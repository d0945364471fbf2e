"""Tensor names as templates, such as `model.layers.{i}.mlp.experts.{e}.w1.weight`, with holes for layer and expert."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from gguf_forge.errors import printable

SUFFIXES = (".weight", ".bias")
_HOLE = re.compile(r"(.*)\{([ie])\}(.*)")
_NUMBER = re.compile("[0-9]{1,9}")

T = TypeVar("T")


class Match(NamedTuple, Generic[T]):
    """The value of the template that a name matches, and the numbers that stand in the holes."""

    value: T
    template: str
    layer: int | None
    expert: int | None


@dataclass
class _Node(Generic[T]):
    literals: dict[str, _Node[T]] = field(default_factory=dict)
    # The keys are (text before the hole, name of the hole, text after the hole) of one part.
    holes: dict[tuple[str, str, str], _Node[T]] = field(default_factory=dict)
    found: tuple[str, T] | None = None
    all_below: tuple[str, T] | None = None


class Templates(Generic[T]):
    """Templates that a name is matched against, as a trie over the dotted parts of names.

    A literal part is tried before a part with a hole. `*` as the last part matches all further parts.

    Example:
        >>> table = Templates([("encoder.block.{i}.layer.0.q", "attn_q"), ("encoder.block.{i}.layer.1.wi", "ffn_up")])
        >>> table.find("encoder.block.7.layer.0.q")
        Match(value='attn_q', template='encoder.block.{i}.layer.0.q', layer=7, expert=None)
    """

    def __init__(self, entries: Iterable[tuple[str, T]]):
        self._root: _Node[T] = _Node()
        for template, value in entries:
            self._add(template, value)

    def _add(self, template: str, value: T) -> None:
        node, parts = self._root, template.split(".")
        for part in parts[:-1] if parts[-1] == "*" else parts:
            hole = _HOLE.fullmatch(part)
            if hole is None:
                node = node.literals.setdefault(part, _Node())
            else:
                before, name, after = hole.groups()
                node = node.holes.setdefault((before, name, after), _Node())
        if parts[-1] == "*":
            node.all_below = (template, value)
        else:
            node.found = (template, value)

    def find(self, name: str) -> Match[T] | None:
        """The match of `name`; None if no template matches. Of several, the one with literal first parts counts."""
        return next(self._walk(self._root, name.split("."), 0, {}), None)

    def _walk(self, node: _Node[T], parts: list[str], at: int, numbers: Mapping[str, int]) -> Iterator[Match[T]]:
        if at == len(parts):
            if node.found is not None:
                yield _match(node.found, numbers)
            return
        part = parts[at]
        if part in node.literals:
            yield from self._walk(node.literals[part], parts, at + 1, numbers)
        for (before, hole, after), below in node.holes.items():
            middle = part[len(before) : len(part) - len(after)]
            if part == before + middle + after and _NUMBER.fullmatch(middle):
                yield from self._walk(below, parts, at + 1, {**numbers, hole: int(middle)})
        if node.all_below is not None:
            yield _match(node.all_below, numbers)


def _match(found: tuple[str, T], numbers: Mapping[str, int]) -> Match[T]:
    template, value = found
    return Match(value, template, numbers.get("i"), numbers.get("e"))


def find_with_suffix(table: Templates[str], name: str) -> Match[str] | None:
    """Looks a name up in a table of targets, first as it is, then without its suffix.

    A suffix that was removed for the look-up is appended to the target.
    """
    match = table.find(name)
    if match is not None:
        return match
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            match = table.find(name.removesuffix(suffix))
            if match is not None:
                return match._replace(value=match.value + suffix, template=match.template + suffix)
    return None


class ParsedName(NamedTuple):
    """A name as its template and the numbers that stood in the holes."""

    template: str
    layer: int | None
    expert: int | None


def parse(name: str) -> ParsedName:
    """Replaces the first and the second number of a dotted name by holes.

    This is for GGUF names, and to group names in messages. A checkpoint's name may have numbers that are neither a
    layer nor an expert; `Templates` handles these.

    Example:
        >>> parse("blk.3.ffn_up.weight")
        ParsedName(template='blk.{i}.ffn_up.weight', layer=3, expert=None)
    """
    parts = name.split(".")
    numbers = [at for at, part in enumerate(parts) if _NUMBER.fullmatch(part)][:2]
    values = [int(parts[at]) for at in numbers]
    for at, hole in zip(numbers, ("{i}", "{e}"), strict=False):
        parts[at] = hole
    layer, expert = (*values, None, None)[:2]
    return ParsedName(".".join(parts), layer, expert)


def fill(template: str, layer: int | None = None, expert: int | None = None) -> str:
    """The name that a template stands for."""
    return template.replace("{i}", str(layer)).replace("{e}", str(expert))


def role(target: str) -> str:
    """The role of a GGUF tensor: its name without layer and suffix.

    Example:
        >>> role("blk.{i}.attn_q.bias")
        'attn_q'
    """
    name = target.removeprefix("blk.{i}.")
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def target_of(template: str, names: Mapping[str, str]) -> str | None:
    """The GGUF template for a checkpoint template, looked up with suffix and then without; None if unknown."""
    if template in names:
        return names[template]
    for suffix in SUFFIXES:
        stem = template.removesuffix(suffix)
        if stem != template and stem in names:
            return names[stem] + suffix
    return None


def group_names(names: Iterable[str], most: int = 30) -> list[str]:
    """Names for a message: one line for all names that differ only in numbers. A long list is cut.

    Example:
        >>> group_names(["a.0.w", "a.1.w", "b"])
        ['a.{0..1}.w (2)', 'b']
    """
    groups: dict[str, list[tuple[int | None, int | None]]] = {}
    for name in names:
        template, layer, expert = parse(name)
        groups.setdefault(template, []).append((layer, expert))
    lines = [printable(_group_line(template, numbers)) for template, numbers in groups.items()]
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]


def _group_line(template: str, numbers: list[tuple[int | None, int | None]]) -> str:
    line = template
    for hole, values in (("{i}", [n[0] for n in numbers]), ("{e}", [n[1] for n in numbers])):
        known = sorted({n for n in values if n is not None})
        if known:
            span = str(known[0]) if len(known) == 1 else f"{{{known[0]}..{known[-1]}}}"
            line = line.replace(hole, span)
    return line if len(numbers) == 1 else f"{line} ({len(numbers)})"
