"""A Hugging Face folder: its config and its tensors, validated; no weight is read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISDIR
from types import MappingProxyType, TracebackType
from typing import Any

from gguf_forge.checkpoint.mistral_form import read_params
from gguf_forge.checkpoint.safetensors_file import StoredTensor, read_safetensors_header
from gguf_forge.errors import InputError, UnsupportedError, UsageError, printable
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.source import Source

log = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """A model folder. `tensors` is in the order in which the converter of llama.cpp visits them.

    That is: shards sorted by name, and within a shard tensors sorted by name. The shards are those that the
    index names, or without an index all files called `model*.safetensors`.

    A shard may be a symbolic link to anywhere, as in the cache of huggingface_hub, where snapshots link to
    blobs; the names in an index may only name files of the folder itself.
    """

    folder: Folder
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    files: tuple[Source, ...]

    @classmethod
    def open(cls, folder: Path, *, weights: bool = True, native: bool = False) -> Checkpoint:
        """Opens the model in a folder of this machine, as `of` does.

        Raises:
            UsageError: `folder` is not a folder.

        Example:
            >>> with Checkpoint.open(Path("Tiny-1.1B-Chat")) as checkpoint:
            ...     checkpoint.tensors["model.norm.weight"].shape
            (2048,)
        """
        return cls.of(model_folder(folder), weights=weights, native=native)

    @classmethod
    def of(cls, folder: Folder, *, weights: bool = True, native: bool = False) -> Checkpoint:
        """Opens the model in a folder, wherever that lies.

        Args:
            folder: The model's.
            native: It is in Mistral's own form: params.json, and shards that are called `consolidated*.safetensors`.
            weights: False for a vocabulary alone, which needs no weights: `tensors` and `files` are empty.

        Raises:
            InputError: config.json, the index or a shard is missing, broken, or contradicts another.
            UnsupportedError: the weights are not in safetensors files.
        """
        config = read_params(folder) if native else read_json_object(folder, "config.json")
        if not weights:
            return cls(folder, MappingProxyType(config), MappingProxyType({}), ())
        present = folder.names()
        index = _read_index(folder) if INDEX in present and not native else None
        names = _shard_names(folder, present, index, "consolidated" if native else "model")
        with ExitStack() as opened:
            files = tuple(opened.enter_context(closing(folder.open(name))) for name in names)
            tensors = _collect(files)
            if index is not None:
                _check_index(index, tensors, folder.path / INDEX)
            opened.pop_all()
        return cls(folder, MappingProxyType(config), MappingProxyType(tensors), files)

    def with_module(self, path: str, prefix: str) -> Checkpoint:
        """The same with the tensors of a module's own file in front, if the folder has it.

        Args:
            path: The file, under the folder.
            prefix: What is put before the names of its tensors.

        Raises:
            InputError: the file is broken, or the model has a tensor of the same name.
        """
        if not self.folder.has(path):
            return self
        with ExitStack() as opened:
            file = opened.enter_context(closing(self.folder.open(path)))
            found = {prefix + name: tensor for name, tensor in read_safetensors_header(file).items()}
            twice = sorted(found.keys() & self.tensors.keys())
            if twice:
                raise InputError(f"the model itself has {len(twice)} tensors of this: {_some(twice)}", file=file.path)
            opened.pop_all()
        return replace(self, tensors=MappingProxyType({**found, **self.tensors}), files=(*self.files, file))

    def close(self) -> None:
        for file in self.files:
            file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def model_folder(folder: Path) -> LocalFolder:
    """A model's folder of this machine.

    Raises:
        UsageError: there is no such folder, or it is a file.
    """
    hint = "give the folder that holds config.json and the .safetensors files"
    try:
        if S_ISDIR(folder.stat().st_mode):
            return LocalFolder(folder)
    except FileNotFoundError as error:
        if len(folder.parts) == 2 and not folder.is_absolute():
            hint += f"; a model of the hub comes with `hf download {folder.as_posix()} --local-dir FOLDER`"
        raise UsageError("there is no such folder", file=folder, hint=hint) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"the folder cannot be opened: {error}", file=folder, hint=hint) from error
    if folder.suffix == ".gguf":
        raise UsageError(
            "this is a GGUF file, not a model folder", file=folder, hint="use `gguf-forge quantize` for it"
        )
    raise UsageError("this is a file, not a model folder", file=folder, hint=hint)


def _read_index(folder: Folder) -> dict[str, Any]:
    """The index with a checked weight_map, tensor name -> file name of the folder."""
    index, path = read_json_object(folder, INDEX), folder.path / INDEX
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("the index has no weight_map", file=path, hint="download it again")
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


def _shard_names(folder: Folder, present: Sequence[str], index: Mapping[str, Any] | None, beginning: str) -> list[str]:
    found = [name for name in present if name.startswith(beginning) and name.endswith(".safetensors")]
    if index is None:
        if not found:
            raise _no_weights(folder.path, present, beginning)
        return found
    names = sorted(set(index["weight_map"].values()))
    if len({name.casefold() for name in names}) < len(names):
        raise InputError("the weight_map names two files that differ in case only", file=folder.path / INDEX)
    missing = [name for name in names if not folder.has(name)]
    if missing:
        broken = " (broken links)" if any(name in present for name in missing) else ""
        raise InputError(
            f"{len(missing)} of {len(names)} files of the model are missing{broken}: {_some(missing)}",
            file=folder.path,
            hint="download the rest",
        )
    unused = [name for name in found if name not in names]
    if unused:
        log.warning("%s: ignored, as the index does not name them: %s", folder.path, _some(unused))
    return names


def _no_weights(folder: Path, present: Sequence[str], beginning: str) -> InputError | UnsupportedError:
    for suffixes, what in (
        ((".bin", ".pt", ".pth", ".ckpt"), "PyTorch (pickle) files, which are never read: they can run code"),
        ((".h5", ".msgpack", ".onnx"), "files of another framework"),
    ):
        if any(name.endswith(suffixes) for name in present):
            return UnsupportedError(
                f"the weights are {what}",
                file=folder,
                hint="save the model as safetensors, or look for a copy that is",
            )
    others = [name for name in present if name.endswith(".safetensors")]
    if others:
        return UnsupportedError(
            f"no file is called {beginning}*.safetensors; there are: {_some(others)}",
            file=folder,
            hint="give a folder in the format of transformers",
        )
    if any(name.endswith(".gguf") for name in present):
        return UnsupportedError(
            "the folder holds GGUF files, not a checkpoint",
            file=folder,
            hint="use `gguf-forge quantize` on the file",
        )
    return InputError("the folder holds no .safetensors files", file=folder, hint="download the weights, too")


def _collect(files: Iterable[Source]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        found = read_safetensors_header(file)
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            other = tensors[twice[0]].source.path.name
            raise InputError(
                f"{len(twice)} tensors are in {other}, too: {_some(twice)}",
                file=file.path,
                hint="remove the files that are not of this model",
            )
        tensors |= found
    return tensors


def _check_index(index: Mapping[str, Any], tensors: Mapping[str, StoredTensor], path: Path) -> None:
    weight_map = index["weight_map"]
    missing, extra = sorted(weight_map.keys() - tensors.keys()), sorted(tensors.keys() - weight_map.keys())
    if missing or extra:
        problems = [f"{len(missing)} of its tensors are in no file: {_some(missing)}"] * bool(missing)
        problems += [f"{len(extra)} tensors of the files are not in it: {_some(extra)}"] * bool(extra)
        raise InputError(
            "the index and the files disagree: " + "; ".join(problems),
            file=path,
            hint="download the index and the files of one revision",
        )
    moved = [name for name, tensor in tensors.items() if tensor.source.path.name != weight_map[name]]
    if moved:
        log.warning("%s: %d tensors are in another file than it says: %s", path, len(moved), _some(moved))
    metadata = index.get("metadata")
    claimed = metadata.get("total_size") if isinstance(metadata, dict) else None
    total = sum(tensor.nbytes for tensor in tensors.values())
    if claimed is not None and claimed != total:
        log.warning("%s: total_size is %s, but the tensors have %d bytes", path, claimed, total)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(printable(name) for name in names[:5]) + more
