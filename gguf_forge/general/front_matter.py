"""YAML at the beginning of a model card, parsed within limits. PyYAML is loaded with this module, for cards alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

# Front matter beyond these limits is refused.
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


def parse_front_matter(text: str) -> Any:
    """The value that the YAML in `text` stands for. Numbers and dates are given as the text they are written as.

    Raises:
        ValueError: it is no valid YAML, or beyond the limits.

    Example:
        >>> parse_front_matter("license: mit\\nversion: 1.10\\n")
        {'license': 'mit', 'version': '1.10'}
    """
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
    raise ValueError(problem)


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
