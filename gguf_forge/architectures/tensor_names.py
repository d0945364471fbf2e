"""The tensors of each GGUF architecture, and their names in checkpoints.

The table, tensor_names.json, holds the facts of gguf-py's `TensorNameMap` and of its constants. tools/refresh_names.py
generates it. Holes are written `{i}` for a layer and `{e}` for an expert or an inner part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from gguf_forge.architectures.templates import role


class _Table(NamedTuple):
    tensors: dict[str, str]
    """Tensor -> its GGUF template, without suffix."""
    sources: dict[str, list[str]]
    """Tensor -> the templates of checkpoints, without suffix."""
    architectures: dict[str, list[str]]
    """GGUF architecture -> its tensors."""
    replaced: dict[str, dict[str, list[str]]]
    """GGUF architecture -> tensor -> templates that replace those in `sources`."""


@lru_cache
def _table() -> _Table:
    return _Table(**json.loads((files(__package__) / "tensor_names.json").read_text(encoding="utf-8")))


@lru_cache
def known_names(architecture: str) -> Mapping[str, str]:
    """Checkpoint template -> GGUF template of one GGUF architecture, both without suffix.

    The GGUF templates are also among the checkpoint templates, because a tensor may already have its GGUF name. An
    unknown architecture has no names.

    Example:
        >>> known_names("llama")["model.layers.{i}.self_attn.q_proj"]
        'blk.{i}.attn_q'
    """
    table = _table()
    wanted = set(table.architectures.get(architecture, ()))
    sources = {**table.sources, **table.replaced.get(architecture, {})}
    return MappingProxyType(
        {
            name: table.tensors[tensor]
            for tensor, names in sources.items()
            if tensor in wanted
            for name in (table.tensors[tensor], *names)
        }
    )


@lru_cache
def roles_of(architecture: str) -> frozenset[str]:
    """The roles of all tensors of one GGUF architecture, also of those that only a declaration can produce.

    Example:
        >>> "attn_q" in roles_of("llama")
        True
    """
    table = _table()
    return frozenset(role(table.tensors[tensor]) for tensor in table.architectures.get(architecture, ()))
