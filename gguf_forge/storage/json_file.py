"""Reads JSON files that others wrote, up to a bounded size. A broken file is refused with a clear message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf_forge.errors import InputError
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.memory import check_memory, json_cost

# Other files that people often have in place of a model's file: the first bytes, a description, and a hint.
_IMPOSTORS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
    (b"<!doctype html", "a web page, not a file of the model", "download it again, logged in if need be"),
    (b"<html", "a web page, not a file of the model", "download it again, logged in if need be"),
    (b"<?xml", "an error message of the server, not a file of the model", "download it again"),
    (b"pk\x03\x04", "a PyTorch (pickle) file, which is never read", "save the model as safetensors"),
    (b"gguf", "a GGUF file", "quantize it with `gguf-forge quantize`"),
)
IMPOSTOR_BYTES = 64


def refuse_impostor(head: bytes, file: Path) -> None:
    """Raises InputError if `head`, the first bytes of `file`, shows that it is a completely different kind of file."""
    start = head.lstrip().lower()
    for prefix, what, hint in _IMPOSTORS:
        if start.startswith(prefix):
            raise InputError(f"this is {what}", file=file, hint=hint)


def read_json_object(folder: Folder, name: str, limit: int | None = None) -> dict[str, Any]:
    """The object in a JSON file of a folder, as `read_json` reads it.

    Raises:
        InputError: the file cannot be read as in `read_json`, or its value is not an object.
    """
    value = read_json(folder, name, limit)
    if not isinstance(value, dict):
        raise InputError(f"a JSON object is expected, not a {type(value).__name__}", file=folder.path_of(name))
    return value


def read_json(folder: Folder, name: str, limit: int | None = None) -> Any:
    """The value in a JSON file of a folder. NaN and Infinity are accepted, because published configs have them.

    Raises:
        InputError: the file is missing, unreadable, empty, too large, not UTF-8, or not JSON.
    """
    raw, path = folder.read_small(name, limit), folder.path_of(name)
    if not raw.strip():
        raise InputError("the file is empty", file=path, hint="download it again")
    refuse_impostor(raw[:IMPOSTOR_BYTES], path)
    check_memory(json_cost(raw), "its JSON", path)
    try:
        return json.loads(raw.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}",
            file=path,
            hint="download it again, or fix that line",
        ) from error
    except UnicodeDecodeError as error:
        hint = "download it again"
        raise InputError(f"not valid UTF-8 at byte {error.start}", file=path, hint=hint) from error
    except (RecursionError, ValueError) as error:
        raise InputError("nested too deeply, or a number with too many digits", file=path) from error
