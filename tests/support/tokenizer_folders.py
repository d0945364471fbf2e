"""Tokenizer folders for tests: copies of a family's that a test may change, and metadata in a form to compare."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthetic import small_files

from gguf_forge.gguf_file.values import Metadata, Value, ValueType

_FORMATS = {ValueType.UINT8: "<B", ValueType.INT32: "<i", ValueType.FLOAT32: "<f"}


def copy_folder(family: str, folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    """A copy of a family's small files in `folder`, which is made."""
    folder.mkdir(parents=True)
    for name, file in small_files(family).items():
        if name.name not in without:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, folder / name)
    return folder


def edit(file: Path, change: Callable[[Any], object]) -> None:
    """Changes the value of a JSON file in place."""
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def entries(metadata: Metadata) -> list[list[Any]]:
    """Key, type and value of each entry, an array by element type, length and sha256 as manifests have it."""
    return [[key, value.type.name, *_content(value)] for key, value in metadata.items()]


def _content(value: Value) -> list[Any]:
    if value.type is not ValueType.ARRAY:
        return [value.data]
    assert value.element is not None
    digest = hashlib.sha256()
    for item in value.data:
        if value.element is ValueType.STRING:
            raw = item.encode() if isinstance(item, str) else item
            digest.update(len(raw).to_bytes(8, "little") + raw)
        else:
            digest.update(struct.pack(_FORMATS[value.element], item))
    return [value.element.name, len(value.data), digest.hexdigest()]
