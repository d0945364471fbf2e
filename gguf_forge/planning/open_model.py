"""Opens a source. Only this module decides whether it is a checkpoint, an adapter or a GGUF file.

What reads one kind of source is imported when such a source is opened: a run needs the modules of one kind only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from os import PathLike
from pathlib import Path

from gguf_forge.checkpoint.adapter import is_adapter
from gguf_forge.checkpoint.adapter_config import CONFIG
from gguf_forge.checkpoint.checkpoint import model_folder
from gguf_forge.errors import InputError, UsageError
from gguf_forge.gguf_file.header import MAGIC
from gguf_forge.gguf_file.opened import open_gguf
from gguf_forge.name_pattern import NamePattern
from gguf_forge.planning.adapters import scaled_adapter
from gguf_forge.planning.model import OpenModel
from gguf_forge.storage.folder import read_beginning
from gguf_forge.storage.local.folder import LocalFolder, located
from gguf_forge.storage.paths import is_file, is_folder, is_there

_OF_CHECKPOINTS = (".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt", ".model")


def open_model(
    source: str | PathLike[str],
    *,
    vocab_only: bool = False,
    base: str | PathLike[str] | None = None,
    mistral_format: bool = False,
    drop_tensor: Sequence[str] = (),
    lora: Sequence[str] = (),
    partial: bool = False,
) -> AbstractContextManager[OpenModel]:
    """Opens what files are made of. Headers are read and checked, weights are not read.

    Args:
        source: A Hugging Face folder, of a model or of a LoRA adapter, or a GGUF file (the first one of a split).
        vocab_only: A folder may lack weights.
        base: The folder of an adapter's base model; None for the one that the adapter names.
        mistral_format: A folder is read in Mistral's own form, even if it also has the form of transformers.
        drop_tensor: Patterns of names of a checkpoint's tensors that are left out.
        lora: Adapters that are merged into a checkpoint, as ADAPTER or ADAPTER:SCALE.
        partial: Of a split GGUF file, parts may be missing or cut short.

    Raises:
        ForgeError: what was wrong, where, and what to do.

    Example:
        >>> with open_model("Qwen3-0.6B") as model:  # doctest: +SKIP
        ...     infos, architecture = model.infos()
    """
    path = Path(source)
    if _is_gguf(path):
        _refuse_file_of_checkpoint(path)
        from gguf_forge.planning.from_gguf import GgufModel

        return closing(GgufModel(open_gguf(path, partial=partial)))
    if is_adapter(LocalFolder(path), vocab_only=vocab_only):
        if drop_tensor or lora:
            option = "--drop-tensor" if drop_tensor else "--lora"
            raise UsageError(f"{option} is for checkpoints, and this is an adapter", file=path, hint="leave it out")
        from gguf_forge.planning.from_adapter import AdapterModel

        named = LocalFolder(Path(base)) if base is not None else None
        return closing(AdapterModel.open(LocalFolder(path), named))
    from gguf_forge.planning.from_checkpoint import CheckpointModel

    folder, drop = model_folder(path), tuple(map(NamePattern.compile, drop_tensor))
    adapters = tuple(map(scaled_adapter, lora))
    return closing(
        CheckpointModel.open(folder, vocab_only=vocab_only, mistral_format=mistral_format, drop=drop, adapters=adapters)
    )


def open_origin(
    source: str | PathLike[str],
    *,
    vocab_only: bool = False,
    base: str | PathLike[str] | None = None,
    mistral_format: bool = False,
    drop_tensor: Sequence[str] = (),
    lora: Sequence[str] = (),
) -> AbstractContextManager[OpenModel]:
    """Opens what an existing file was made of, as `open_model` does; InputError if there is nothing."""
    if not is_there(Path(source)):
        raise InputError("there is no such file or folder", file=source, hint="check the spelling of the path")
    return open_model(
        source,
        vocab_only=vocab_only,
        base=base,
        mistral_format=mistral_format,
        drop_tensor=drop_tensor,
        lora=lora,
    )


def _is_gguf(path: Path) -> bool:
    """Whether the path is a GGUF file, or the name of one that does not exist, and not a folder."""
    return is_file(path) or (path.suffix == ".gguf" and not is_folder(path))


def _refuse_file_of_checkpoint(path: Path) -> None:
    """Raises UsageError if the path is a file out of a checkpoint's folder, whose name says so, and no GGUF file."""
    if path.suffix not in _OF_CHECKPOINTS or not is_file(path):
        return
    folder, name = located(path)
    if read_beginning(folder, name, len(MAGIC)) == MAGIC:
        return
    hint = "give the folder that holds config.json and the .safetensors files"
    if folder.has("config.json") or folder.has(CONFIG):
        hint = f"give its folder: {folder.path}"
    elif path.suffix == ".safetensors":
        hint = "put config.json and the tokenizer's files of the same model beside it, and give their folder"
    raise UsageError("this is a file of a checkpoint, not a GGUF file", file=path, hint=hint)
