"""The files that hold a model's tensors: those that the index names, or all of the usual name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from gguf_forge.checkpoint.safetensors_file import MAX_TENSORS, StoredTensor, read_safetensors_header
from gguf_forge.errors import InputError, printable, some_of
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.storage.source import Source
from gguf_forge.wording import log_of

log = log_of(__name__)

INDEX = "model.safetensors.index.json"


class Shards(NamedTuple):
    """The opened files of a model, and their tensors: files sorted by name, and in each its tensors sorted by name."""

    files: tuple[Source, ...]
    tensors: Mapping[str, StoredTensor]


def shard_names(names: Sequence[str], *, native: bool = False) -> list[str]:
    """Those of these names that files of weights have: in Mistral's own form they begin with another word."""
    beginning = "consolidated" if native else "model"
    return [name for name in names if name.startswith(beginning) and name.endswith(".safetensors")]


def has_weights(folder: Folder, *, native: bool = False) -> bool:
    """Whether the folder has files of weights, or an index that names some; `native`: in Mistral's own form."""
    names = folder.names()
    return bool(shard_names(names, native=native)) or (INDEX in names and not native)


def open_shards(folder: Folder, opened: ExitStack, *, native: bool = False) -> Shards:
    """Opens the files of weights and reads their headers.

    Args:
        folder: The model's. It has files of weights or an index.
        opened: Closes the files if anything fails.
        native: They are in Mistral's own form, which has no index.

    Raises:
        InputError: the index or a file is missing, broken, or contradicts another.
    """
    present = folder.names()
    found = shard_names(present, native=native)
    index = _read_index(folder) if INDEX in present and not native else None
    if index is None:
        return _opened(folder, found, opened)
    path, weight_map = folder.path / INDEX, index["weight_map"]
    names = sorted(set(weight_map.values()))
    if len({name.casefold() for name in names}) < len(names):
        raise InputError("the weight_map names two files that differ in case only", file=path)
    missing = [name for name in names if not folder.has(name)]
    if missing:
        return _of_stale_index(folder, weight_map, missing, opened)
    unused = [name for name in found if name not in names]
    if unused:
        log.warning("%s: ignored, as the index does not name them: %s", folder.path, some_of(unused))
    shards = _opened(folder, names, opened)
    _check_index(index, shards.tensors, path)
    return shards


def _read_index(folder: Folder) -> dict[str, Any]:
    """The index with a checked weight_map, tensor name -> file name of the folder."""
    index, path = read_json_object(folder, INDEX), folder.path / INDEX
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        hint = "download it again, or remove it if the folder has all files of the model"
        raise InputError("the index has no weight_map", file=path, hint=hint)
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not _is_file_name(name):
            raise InputError(
                f"the weight_map names {name!r:.100}, which is not the name of a file in the folder",
                file=path,
                tensor=printable(tensor),
                hint="do not trust this model",
            )
    return index


def _is_file_name(name: str) -> bool:
    """Whether `name` names an entry of the folder itself, on every system."""
    is_plain = name.isprintable() and not any(char in name for char in "/\\:")
    return is_plain and name not in ("", ".", "..") and len(name.encode()) <= 255


def _of_stale_index(folder: Folder, weight_map: Mapping[str, str], missing: list[str], opened: ExitStack) -> Shards:
    """The shards of a folder whose index names files that are not there.

    Tools write a model anew in other files and leave the old index beside them. If the files that are there hold
    exactly the tensors that the index names, they are the model.
    """
    present = folder.names()
    here = [name for name in shard_names(present) if folder.has(name)]
    shards = _opened(folder, here, opened)
    absent, extra = weight_map.keys() - shards.tensors.keys(), shards.tensors.keys() - weight_map.keys()
    if not absent and not extra:
        log.warning(
            "%s names files that are not here (%s). The files that are here hold all of its tensors, and are taken: %s",
            folder.path / INDEX,
            some_of(missing),
            some_of(here),
        )
        return shards
    broken = " (broken links)" if any(name in present for name in missing) else ""
    others = [name for name in here if name not in weight_map.values()]
    hint = "download the files that are missing"
    if others:
        hint = f"if {some_of(others)} {_are(others)} the whole model, remove {INDEX}; if not, {hint}"
    total = len(set(weight_map.values()))
    raise InputError(
        f"{len(missing)} of {total} files of the model are missing{broken}: {some_of(missing)}; "
        f"{len(absent)} of {len(weight_map)} tensors are in no file",
        file=folder.path,
        hint=hint,
    )


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _opened(folder: Folder, names: Sequence[str], opened: ExitStack) -> Shards:
    files = tuple(opened.enter_context(closing(folder.open(name))) for name in names)
    return Shards(files, _collect(files))


def _collect(files: Iterable[Source]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        found = read_safetensors_header(file)
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            other = tensors[twice[0]].source.path.name
            raise InputError(
                f"{len(twice)} tensors are also in {other}: {some_of(twice)}",
                file=file.path,
                hint="the folder holds two copies of the model, or parts of two models: keep the files of one",
            )
        tensors |= found
        if len(tensors) > MAX_TENSORS:
            raise InputError(f"the model has more than the {MAX_TENSORS:,} tensors that are read", file=file.path)
    return tensors


def _check_index(index: Mapping[str, Any], tensors: Mapping[str, StoredTensor], path: Path) -> None:
    weight_map = index["weight_map"]
    missing, extra = sorted(weight_map.keys() - tensors.keys()), sorted(tensors.keys() - weight_map.keys())
    if missing or extra:
        problems = [f"{len(missing)} of its tensors are in no file: {some_of(missing)}"] * bool(missing)
        problems += [f"{len(extra)} tensors of the files are not in it: {some_of(extra)}"] * bool(extra)
        hint = "download the index and the files of one revision"
        raise InputError(
            "the index and the files disagree: " + "; ".join(problems),
            file=path,
            hint=f"{hint}; if the files are the whole model, remove the index",
        )
    moved = [name for name, tensor in tensors.items() if tensor.source.path.name != weight_map[name]]
    if moved:
        log.warning("%s: %d tensors are in another file than it says: %s", path, len(moved), some_of(moved))
    metadata = index.get("metadata")
    claimed = metadata.get("total_size") if isinstance(metadata, dict) else None
    total = sum(tensor.nbytes for tensor in tensors.values())
    if claimed is not None and claimed != total:
        log.warning("%s: total_size is %s, but the tensors have %d bytes", path, claimed, total)
