"""What the tensors of a class are called in checkpoints, and how many axes they have. The way back needs it.

tools/refresh_checkpoint_names.py makes checkpoint_names.json from checkpoints of which the reference made files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from gguf_forge.architectures.site import Part


@dataclass(frozen=True)
class CheckpointNames:
    """The names in the checkpoints of one class.

    Attributes:
        of: The class that config.json names; empty if it names none. It may be a model around the one that the
            declaration is for.
        patterns: Template -> the patterns that shapes under it have: a letter for each axis, "1" for an axis of length
            1 and "n" for every other one.
    """

    of: str
    patterns: Mapping[str, tuple[str, ...]]


@lru_cache
def _table() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Part -> class of the declaration -> forms of its checkpoints."""
    table: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(
        (files(__package__) / "checkpoint_names.json").read_text(encoding="utf-8")
    )
    return table


@lru_cache
def names_in_checkpoints(class_name: str, part: Part) -> tuple[CheckpointNames, ...]:
    """The names in each form of a class's checkpoints, for one part of the model; none for a class without a case.

    Example:
        >>> names_in_checkpoints("MistralForCausalLM", "text")[0].patterns["model.layers.{i}.self_attn.q_proj.weight"]
        ('nn',)
    """
    return tuple(_form(form) for form in _table()[part].get(class_name, ()))


def _form(form: dict[str, Any]) -> CheckpointNames:
    patterns: dict[str, tuple[str, ...]] = {}
    for pattern, names in form["names"].items():
        for name in names:
            patterns[name] = (*patterns.get(name, ()), pattern)
    return CheckpointNames(form["of"], MappingProxyType(patterns))
