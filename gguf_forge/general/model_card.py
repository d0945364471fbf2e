"""The YAML front matter of a model card (README.md), read so that no card can stop a conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gguf_forge.errors import InputError
from gguf_forge.storage.folder import Folder, read_beginning
from gguf_forge.wording import log_of

log = log_of(__name__)

_CARD = "README.md"
# Longer front matter is ignored. Cards with benchmark results reach 2 MB.
_MAX_BYTES = 4 << 20


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
    from gguf_forge.general.front_matter import parse_front_matter  # loads PyYAML

    try:
        return parse_front_matter(text)
    except ValueError as error:
        log.warning("%s: the model card is ignored: no valid YAML in front: %.200s", path, error)
        return None
