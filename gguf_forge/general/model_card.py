"""The YAML front matter of a model card (README.md), read so that no card can stop a conversion."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from gguf_forge.errors import InputError
from gguf_forge.storage.folder import Folder, read_beginning
from gguf_forge.wording import log_of

log = log_of(__name__)

_CARD = "README.md"
# Front matter beyond these limits is ignored. Cards with benchmark results reach 2 MB.
_MAX_BYTES = 4 << 20
_MAX_EVENTS = 200_000  # each beginning or end of a list or a mapping, and each value, is an event
_MAX_CHARACTERS = 8 << 20  # with every alias replaced by what it stands for
_NODE_CHARACTERS = 16  # what a value counts in addition to its text
_MAX_DEPTH = 100  # deeper nesting could overflow the stack of the C parser
_MAX_SLOW_BYTES = 64 << 10  # for the Python parser, which takes a second for them
_KEPT_TAGS = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:merge"}
# The tags that a card may name. Others make PyYAML compute, such as the sum of a number in base 60.
_ALLOWED_TAGS = {None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))}


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
        data = read_beginning(folder, _CARD, _MAX_BYTES)
        lines = data.decode("utf-8", "replace").splitlines()
    except InputError as error:
        log.warning("%s: the model card is ignored: %s", path, error.words.problem)
        return {}
    if not lines or lines[0] != "---":
        return {}
    end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
    if end == len(lines) and len(data) == _MAX_BYTES:
        log.warning("%s: the model card is ignored: its front matter is longer than %d MiB", path, _MAX_BYTES >> 20)
        return {}
    # `no` in a list is the language Norwegian, not a boolean. Tabs are common in places where YAML forbids them.
    text = "".join(f"{line}\n" for line in lines[1:end]).replace("- no\n", '- "no"\n').replace("\t", "  ")
    card = _parse(text, path)
    if card is not None and not isinstance(card, dict):
        log.warning("%s: the model card is ignored: its front matter is not a mapping", path)
    return card if isinstance(card, dict) else {}


def _parse(text: str, path: Path) -> Any:
    problem = ""
    for loader in _LOADERS:
        if loader is not _LOADERS[0] and len(text) > _MAX_SLOW_BYTES:
            break
        try:
            _check_events(yaml.parse(text, Loader=loader))
            return yaml.load(text, Loader=loader)
        # PyYAML's constructors raise nearly anything on odd values: ValueError, KeyError, RecursionError...
        except Exception as error:
            problem = str(error).replace("\n", " ") or type(error).__name__
    log.warning("%s: the model card is ignored: no valid YAML in front: %.200s", path, problem)
    return None


def _check_events(events: Iterable[Any]) -> None:
    """Raises ValueError for front matter that would take much memory or time as an object."""
    # The characters of each collection that is open, and of each node that has an anchor.
    sizes, anchors, names = [0], dict[str | None, int](), list[str | None]()
    for count, event in enumerate(events):
        if count > _MAX_EVENTS:
            raise ValueError(f"more than {_MAX_EVENTS} values")
        if getattr(event, "tag", None) not in _ALLOWED_TAGS:
            raise ValueError(f"a tag that a model card does not need: {event.tag}")
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.append(0)
            names.append(event.anchor)
            if len(names) > _MAX_DEPTH:
                raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
        elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            if isinstance(event, yaml.AliasEvent):
                # A list may hold itself. Whoever reads the card takes no more from it than texts.
                size, anchor = anchors.get(event.anchor, 0), None
            elif isinstance(event, yaml.ScalarEvent):
                size, anchor = len(event.value) + _NODE_CHARACTERS, event.anchor
            else:
                size, anchor = sizes.pop() + _NODE_CHARACTERS, names.pop()
            if anchor is not None:
                anchors[anchor] = size
            sizes[-1] += size
            if sizes[-1] > _MAX_CHARACTERS:
                raise ValueError(f"more than {_MAX_CHARACTERS} characters with its aliases")
