"""The merges of a BPE vocabulary, from tokenizer.json or merges.txt.

Source: gguf-py's `SpecialVocab`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gguf_forge.errors import some_of
from gguf_forge.gguf_file.values import Metadata, ValueType, array
from gguf_forge.tokenizer.checks import Place, as_list, as_mapping, as_texts
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.wording import log_of

log = log_of(__name__)

# The character that byte-level BPE writes for a space. It replaces plain spaces inside the parts of a merge, because a
# plain space separates the two parts.
_SPACE = "\u0120"


def merges(files: TokenizerFiles) -> Metadata:
    """The merges as `left right` strings; nothing if the vocabulary has none."""
    found = _from_tokenizer(files) or _from_text(files)
    if not found:
        log.warning("%s: the vocabulary has no merges; the model may not work", files.folder.path)
    return {"tokenizer.ggml.merges": array(ValueType.STRING, found)} if found else {}


def merged_pairs(files: TokenizerFiles) -> Iterator[tuple[str, str]]:
    """The two tokens that each merge joins, in the order of the merges."""
    for merge in _from_tokenizer(files):
        left, _, right = merge.partition(" ")
        yield left, right


def merged_texts(files: TokenizerFiles) -> Iterator[str]:
    """The token that each merge makes, in the order of the merges."""
    return (left + right for left, right in merged_pairs(files))


def _from_tokenizer(files: TokenizerFiles) -> list[str]:
    place = files.place("tokenizer.json") / "model"
    model = as_mapping((files.tokenizer or {}).get("model", {}), place)
    place = place / "merges"
    if model.get("merges") is None:
        return []
    found = as_list(model["merges"], place)
    if found and isinstance(found[0], list):
        return _joined(found, place)
    return as_texts(found, place)


def _joined(pairs: list[Any], place: Place) -> list[str]:
    for index, pair in enumerate(pairs):
        if not (type(pair) is list and len(pair) == 2 and type(pair[0]) is type(pair[1]) is str):
            raise (place / index).expected("a pair of strings", pair)
    joined = as_texts([f"{left} {right}" for left, right in pairs], place)
    if "".join(joined).count(" ") == len(pairs):
        return joined
    return [" ".join(part.replace(" ", _SPACE) for part in pair) for pair in pairs]


def _from_text(files: TokenizerFiles) -> list[str]:
    lines = (files.merges or "").split("\n")
    found, others = [], []
    for line in lines[1:] if lines[0].strip().startswith("#") else lines:
        parts = line.split()
        if len(parts) == 2:
            found.append(f"{parts[0]} {parts[1]}")
        elif parts:
            others.append(line)
    if others:
        path = files.folder.path_of("merges.txt")
        log.warning("%s: %d lines are left out, which are no merges: %s", path, len(others), some_of(others))
    return found
