"""Tensor names as templates: `model.layers.{i}.mlp.experts.{e}.w1.weight` with holes for layer and expert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SUFFIXES = (".weight", ".bias")


class ParsedName(NamedTuple):
    """A checkpoint name: its template, and the numbers that were in the holes."""

    template: str
    layer: int | None
    expert: int | None


def parse(name: str) -> ParsedName:
    """Puts a hole where the first and second number of a dotted name stand.

    Example:
        >>> parse("model.layers.3.mlp.experts.12.w1.weight")
        ParsedName(template='model.layers.{i}.mlp.experts.{e}.w1.weight', layer=3, expert=12)
    """
    parts = name.split(".")
    numbers = [at for at, part in enumerate(parts) if part.isascii() and part.isdigit() and len(part) < 10][:2]
    values = [int(parts[at]) for at in numbers]
    for at, hole in zip(numbers, ("{i}", "{e}"), strict=False):
        parts[at] = hole
    layer, expert = (*values, None, None)[:2]
    return ParsedName(".".join(parts), layer, expert)


def fill(template: str, layer: int | None = None, expert: int | None = None) -> str:
    """The name that a template stands for."""
    return template.replace("{i}", str(layer)).replace("{e}", str(expert))


def role(target: str) -> str:
    """What a GGUF tensor is, without its layer and suffix.

    Example:
        >>> role("blk.{i}.attn_q.bias")
        'attn_q'
    """
    name = target.removeprefix("blk.{i}.")
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def target_of(template: str, names: Mapping[str, str]) -> str | None:
    """The GGUF template for a checkpoint template, by name or by name without suffix."""
    if template in names:
        return names[template]
    for suffix in SUFFIXES:
        stem = template.removesuffix(suffix)
        if stem != template and stem in names:
            return names[stem] + suffix
    return None
