"""A Hugging Face folder: its config and its tensors, validated; no weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from stat import S_ISDIR
from types import MappingProxyType, TracebackType
from typing import Any

from gguf_forge.checkpoint.added_tokens import EMBEDDINGS, rows_of_tokens, with_rows, with_tokenizer
from gguf_forge.checkpoint.leftovers import tidied
from gguf_forge.checkpoint.merging import ScaledAdapter, changes_embeddings, changes_head
from gguf_forge.checkpoint.mistral_form import read_params
from gguf_forge.checkpoint.other_folders import cached_snapshots, no_weights, read_config
from gguf_forge.checkpoint.pocket_tts_form import config_of_shapes
from gguf_forge.checkpoint.safetensors_file import StoredTensor, read_safetensors_header
from gguf_forge.checkpoint.shards import has_weights, open_shards
from gguf_forge.errors import InputError, UsageError, printable, some_of
from gguf_forge.name_pattern import NamePattern, found_in
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.source import Source
from gguf_forge.wording import log_of

log = log_of(__name__)

# The key of a config that says whether head and embeddings are one.
_TIED = "tie_word_embeddings"


@dataclass(frozen=True)
class Checkpoint:
    """A model folder. `tensors` is in the order in which the converter of llama.cpp visits them.

    That is: shards sorted by name, and within a shard tensors sorted by name. The shards are those that the
    index names, or without an index all files called `model*.safetensors`. What training tools leave in names is
    taken off, as `leftovers.py` says.

    A shard may be a symbolic link to anywhere, as in the cache of huggingface_hub, where snapshots link to
    blobs; the names in an index may only name files of the folder itself.

    `adapters` are merged into the tensors that `logical_tensors` gives, in their order.
    """

    folder: Folder
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    files: tuple[Source, ...]
    adapters: tuple[ScaledAdapter, ...] = ()

    @classmethod
    def open(
        cls, folder: Path, *, weights: bool = True, native: bool = False, drop: Sequence[NamePattern] = ()
    ) -> Checkpoint:
        """Opens the model in a folder of this machine, as `of` does.

        Raises:
            UsageError: `folder` is not a folder.

        Example:
            >>> with Checkpoint.open(Path("Tiny-1.1B-Chat")) as checkpoint:  # doctest: +SKIP
            ...     checkpoint.tensors["model.norm.weight"].shape
            (2048,)
        """
        return cls.of(model_folder(folder), weights=weights, native=native, drop=drop)

    @classmethod
    def of(
        cls, folder: Folder, *, weights: bool = True, native: bool = False, drop: Sequence[NamePattern] = ()
    ) -> Checkpoint:
        """Opens the model in a folder, wherever that lies.

        Args:
            folder: The model's.
            native: It is in Mistral's own form: params.json, and shards that are called `consolidated*.safetensors`.
            weights: False for a vocabulary alone, which needs no weights: `tensors` and `files` are empty.
            drop: Tensors whose name one of these patterns matches are left out. Case does not matter.

        Raises:
            UsageError: a pattern of `drop` matches no tensor.
            InputError: config.json, the index or a shard is missing, broken, or contradicts another.
            UnsupportedError: the weights are not in safetensors files.
        """
        config = read_params(folder) if native else config_of_shapes(folder) or read_config(folder)
        if not weights:
            return cls(folder, MappingProxyType(config), MappingProxyType({}), ())
        if not has_weights(folder, native=native):
            raise no_weights(folder, native=native)
        with ExitStack() as opened:
            files, stored = open_shards(folder, opened, native=native)
            tensors = _left(stored, drop, folder)
            opened.pop_all()
        return cls(folder, MappingProxyType(config), MappingProxyType(dict(tensors)), files)

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
                raise InputError(f"the model itself has {len(twice)} tensors of this: {some_of(twice)}", file=file.path)
            opened.pop_all()
        return replace(self, tensors=MappingProxyType({**found, **self.tensors}), files=(*self.files, file))

    def with_adapters(self, adapters: Sequence[ScaledAdapter]) -> Checkpoint:
        """The same with adapters, which it closes.

        If one changes the head, the head is none with the embeddings. If one brings embeddings, their number of rows is
        that of the model, and its tokenizer is the model's.

        Raises:
            InputError: an adapter was trained with other tokens than the model has, and its folder has no tokenizer.
        """
        config = _untied(self.config) if changes_head(adapters) else self.config
        rows = rows_of_tokens(adapters)
        of_model = next((t.shape[0] for name, t in self.tensors.items() if name.endswith(EMBEDDINGS) and t.shape), None)
        added = (rows, of_model) if rows is not None and of_model is not None and rows != of_model else None
        config = with_rows(config, added[0]) if added is not None else config
        if config.get(_TIED) is True and changes_embeddings(adapters):
            log.warning("an adapter changes the embeddings, and with them the head, which is one with them")
        folder = with_tokenizer(self.folder, adapters, added=added)
        return replace(self, folder=folder, config=MappingProxyType(config), adapters=tuple(adapters))

    def close(self) -> None:
        for file in (*self.files, *(each.adapter.file for each in self.adapters)):
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
        InputError: there is no such folder.
        UsageError: it is a file, or cannot be opened.
    """
    hint = "give the folder that holds config.json and the .safetensors files"
    try:
        if S_ISDIR(folder.stat().st_mode):
            return LocalFolder(folder)
    except FileNotFoundError as error:
        is_address = folder.parts[:1] in (("http:",), ("https:",))
        named = PurePath(*(folder.parts[2:4] if is_address else folder.parts))
        if len(named.parts) == 2 and not named.is_absolute():
            hint += f"; a model of the hub comes with `hf download {named.as_posix()} --local-dir FOLDER`"
            if snapshots := cached_snapshots(named.as_posix()):
                hint = f"a copy of it is in the hub's cache: give {snapshots[0]}"
        if is_address:
            raise InputError(f"{'//'.join(folder.as_posix().split('/', 1))} is an address", hint=hint) from error
        raise InputError("there is no such folder", file=folder, hint=hint) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"the folder cannot be opened: {why}", file=folder, hint=hint) from error
    if folder.suffix == ".gguf":
        raise UsageError(
            "this is a GGUF file, not a model folder", file=folder, hint="use `gguf-forge quantize` for it"
        )
    raise UsageError("this is a file, not a model folder", file=folder, hint=hint)


def _untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose head has weights of its own."""
    text = config.get("text_config")
    return {**config, **({"text_config": {**text, _TIED: False}} if isinstance(text, dict) else {}), _TIED: False}


def _left(
    tensors: Mapping[str, StoredTensor], drop: Sequence[NamePattern], folder: Folder
) -> Mapping[str, StoredTensor]:
    """The tensors that are not dropped, under the names of the model. A pattern may mean these names, or those in the
    files."""
    kept, used = _without(tensors, drop)
    kept, used_later = _without(tidied(kept, folder.path), drop)
    unused = [pattern.source for pattern in drop if pattern.source not in used | used_later]
    if unused:
        raise UsageError(
            f"--drop-tensor {unused[0]!r}: no tensor has such a name",
            file=folder.path,
            hint=f"the names are those of the checkpoint, such as {printable(next(iter(tensors), 'lm_head.weight'))}",
        )
    if len(kept) < len(tensors):
        log.info("%s: tensors that are left out: %d", folder.path, len(tensors) - len(kept))
    return kept


def _without(
    tensors: Mapping[str, StoredTensor], drop: Sequence[NamePattern]
) -> tuple[Mapping[str, StoredTensor], set[str]]:
    """The tensors that no pattern matches, and the patterns that match some."""
    dropped, used = found_in(drop, tensors)
    return {name: tensor for name, tensor in tensors.items() if name not in dropped}, used
