"""The model as the file's own keys describe it, and the types that its file type would give its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gguf_forge.errors import ForgeError
from gguf_forge.foreign_text import as_text, escaped
from gguf_forge.gguf_file.opened import GgufFile
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.recipe import FILE_TYPES, FileType, ImportanceMatrix, Options, assign
from gguf_forge.toolbox.report.data import Model
from gguf_forge.types.tensor_type import TensorType

_LONGEST = 300  # characters of a metadata value
_ITEMS = 8  # of an array
_IN_LAYER = re.compile(r"(.*?)blk\.([0-9]{1,6})\.(.+)", re.DOTALL)
# Keys of an architecture that a page shows, by the end of the key, and the words for them.
_FACTS = (
    ("block_count", "layers"),
    ("embedding_length", "width"),
    ("feed_forward_length", "feed-forward width"),
    ("attention.head_count", "attention heads"),
    ("attention.head_count_kv", "key/value heads"),
    ("expert_count", "experts"),
    ("expert_used_count", "experts used for a token"),
    ("context_length", "context"),
)


def visible(words: object, longest: int = _LONGEST) -> str:
    """Text from a file as a page may show it: cut, and what would not be seen, or would turn the text round, named.

    Example:
        >>> visible("a\\u202eb\\x07")
        'a\\\\u202eb\\\\x07'
    """
    text = as_text(words) if isinstance(words, bytes) else str(words)
    cut = text if len(text) <= longest else f"{text[:longest]}…"
    return escaped(cut.replace("\n", "\N{RETURN SYMBOL}"))


def layer_and_role(name: str) -> tuple[int | None, str]:
    """The layer that a name speaks of, and the rest of the name.

    Example:
        >>> layer_and_role("blk.7.attn_q.weight"), layer_and_role("v.blk.0.ln1.bias"), layer_and_role("output.weight")
        ((7, 'attn_q'), (0, 'v.ln1.bias'), (None, 'output'))
    """
    found = _IN_LAYER.fullmatch(name)
    layer, rest = (int(found[2]), found[1] + found[3]) if found else (None, name)
    return layer, rest.removesuffix(".weight") or rest


def describe(gguf: GgufFile) -> Model:
    """The model that a file holds, from its keys and tensors."""
    metadata = gguf.metadata
    architecture = _text(metadata.get("general.architecture")) or "unknown"
    file_type = file_type_of(gguf.typed_metadata)
    layers = [layer for tensor in gguf.tensors if (layer := layer_and_role(tensor.name)[0]) is not None]
    facts = [(what, metadata.get(f"{architecture}.{key}")) for key, what in _FACTS]
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is not None and not isinstance(tokens, (str, bytes, int, float)):
        facts.append(("vocabulary", len(tokens)))
    return Model(
        name=visible(_text(metadata.get("general.name")) or gguf.paths[0].stem, 120),
        architecture=visible(architecture, 60),
        files=tuple(visible(path) for path in gguf.paths),
        size=sum(path.stat().st_size for path in gguf.paths),
        parameters=sum(tensor.info.n_elements for tensor in gguf.tensors),
        tensor_bytes=sum(tensor.nbytes for tensor in gguf.tensors),
        file_type=file_type.name if file_type else None,
        layers=max(layers, default=-1) + 1,
        facts={what: _shown(value) for what, value in facts if value is not None},
        metadata={visible(key, 120): _shown(value) for key, value in metadata.items()},
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _shown(value: Any) -> str:
    """A metadata value; of an array the first items and their number."""
    if isinstance(value, (str, bytes)):
        return visible(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10000 else str(value)
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    items = [_shown(item) for item in value[:_ITEMS]]
    if len(set(items)) == 1 and all(item == value[0] for item in value):
        return f"{items[0]} ({len(value):,} times)" if len(value) > 1 else items[0]
    more = f", … ({len(value):,} in all)" if len(value) > _ITEMS else ""
    return visible(", ".join(items) + more)


def file_type_of(metadata: Metadata) -> FileType | None:
    """The file type that the keys name; None if they name none that is known."""
    value = metadata.get("general.file_type")
    found = value.data if value is not None else None
    return next((each for each in FILE_TYPES.values() if each.id is not None and each.id == found), None)


def fallback_types(tensors: Sequence[TensorInfo], metadata: Metadata) -> Mapping[str, TensorType]:
    """The type that the file type names, for every tensor that has another because its rows do not divide into blocks.

    Files whose mix was changed by hand are understood as well as can be: a tensor counts where the file has the very
    type that stands in for the one named.
    """
    file_type = file_type_of(metadata)
    if file_type is None or file_type.default_type is None or file_type.is_float:
        return {}
    has_matrix = any(key.startswith("quantize.imatrix.") for key in metadata)
    matrix = ImportanceMatrix("", {"": np.ones(1, np.float32)}) if has_matrix else None
    try:
        assigned = assign(tensors, metadata, Options(file_type=file_type, keep_order=True, imatrix=matrix))
    except ForgeError:
        return {}
    types = {info.name: info.type for info in tensors}
    return {one.name: one.wanted for one in assigned if one.fallback and types.get(one.name) == one.type}
