"""The YAML front matter of a model card (README.md), read so that no card can stop a conversion."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from gguf_forge.errors import InputError
from gguf_forge.storage.folder import Folder, read_beginning

log = logging.getLogger(__name__)

_MAX_BYTES = 16 << 20  # cards with benchmark results reach 2 MB
_CARD = "README.md"
_MAX_DEPTH = 100  # deeper nesting could overflow the stack of the C parser
_KEPT_TAGS = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:merge"}


def _card_loader(base: Any) -> Any:
    """A loader like `base` that keeps numbers and dates as text, so that version 1.10 does not become 1.1."""
    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag in _KEPT_TAGS]
        for first, known in base.yaml_implicit_resolvers.items()
    }
    return type("CardLoader", (base,), {"yaml_implicit_resolvers": resolvers})


# The C parser is ten times faster. The Python parser accepts some cards that the C parser refuses.
_LOADERS = tuple(_card_loader(base) for base in (getattr(yaml, "CSafeLoader", None), yaml.SafeLoader) if base)


def read_model_card(folder: Folder) -> dict[str, Any]:
    """The front matter of `folder`'s README.md; empty without one, or with a warning when it cannot be read.

    Numbers and dates are given as the text they are written as.
    """
    if not folder.has(_CARD):
        return {}
    path = folder.path / _CARD
    try:
        lines = read_beginning(folder, _CARD, _MAX_BYTES).decode("utf-8", "replace").splitlines()
    except InputError as error:
        log.warning("%s: the model card is ignored: %s", path, error.problem)
        return {}
    if not lines or lines[0] != "---":
        return {}
    end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
    # `no` in a list is the language Norwegian, not a boolean. Tabs are common in places where YAML forbids them.
    text = "".join(f"{line}\n" for line in lines[1:end]).replace("- no\n", '- "no"\n').replace("\t", "  ")
    card = _parse(text, path)
    if card is not None and not isinstance(card, dict):
        log.warning("%s: the model card is ignored: its front matter is not a mapping", path)
    return card if isinstance(card, dict) else {}


def _parse(text: str, path: Path, loaders: tuple[Any, ...] = _LOADERS) -> Any:
    try:
        _refuse_deep(text, loaders[0])
        return yaml.load(text, Loader=loaders[0])
    # PyYAML's constructors raise nearly anything on odd values: ValueError, KeyError, RecursionError...
    except Exception as error:
        if loaders[1:]:
            return _parse(text, path, loaders[1:])
        problem = str(error).replace("\n", " ") or type(error).__name__
        log.warning("%s: the model card is ignored: no valid YAML in front: %.200s", path, problem)
        return None


def _refuse_deep(text: str, loader: Any) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
