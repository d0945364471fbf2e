"""Adapters that are merged into a checkpoint: how a request names them, and whether the file has a place for them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from gguf_forge.architectures.mapping import PlannedTensor
from gguf_forge.checkpoint.adapter import WEIGHTS, Adapter
from gguf_forge.checkpoint.adapter_config import CONFIG
from gguf_forge.checkpoint.merging import ScaledAdapter
from gguf_forge.errors import UnsupportedError, UsageError, printable, some_of
from gguf_forge.general import model_id_of
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.paths import is_folder, is_there
from gguf_forge.tensors.stored import stored_in

log = logging.getLogger(__name__)


def scaled_adapter(text: str) -> tuple[LocalFolder, float]:
    """The folder and the factor of ADAPTER[:SCALE]. A folder whose name has a colon may be given as it is.

    Raises:
        UsageError: there is no such folder, or the factor is no number.
    """
    path, factor = Path(text), 1.0
    if not is_there(path) and ":" in text:
        name, _, number = text.rpartition(":")
        path, factor = Path(name), _factor(number)
    if path.suffix == ".gguf":
        raise UsageError("--lora: this is a GGUF file", file=path, hint="give the folder that PEFT wrote")
    if not is_folder(path):
        hint = f"give the folder that holds {CONFIG} and {WEIGHTS}, and after a colon its factor, if you like"
        raise UsageError("--lora: there is no such folder", file=path, hint=hint)
    return LocalFolder(path), factor


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = float("nan")
    if not isfinite(factor) or abs(factor) > 1e6:
        raise UsageError(f"--lora: {printable(text)} is no factor", hint="write ADAPTER:SCALE, such as my-adapter:0.5")
    return factor


def say_base(adapter: Adapter, folder: Folder, config: Mapping[str, Any]) -> None:
    """Notes an adapter that names another base model than this one, which may be a copy under another name."""
    named = adapter.config.base_model
    names = {_last(str(name)) for name in (model_id_of(folder), config.get("_name_or_path", ""))}
    if named is not None and _last(named) not in names:
        log.info("%s: its base model is %s", adapter.folder.path, printable(named))


def _last(name: str) -> str:
    """The last part of a model's name or path."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].casefold()


def check_places(tensors: Sequence[PlannedTensor], adapters: Sequence[ScaledAdapter]) -> None:
    """Warns of changes that the file has no place for, such as those of another part of the model.

    Raises:
        UnsupportedError: nothing of an adapter is in the file.
    """
    if not tensors:
        return
    used = {(part.source.path, part.name) for tensor in tensors for part in stored_in(tensor.expr)}
    for each in adapters:
        file = each.adapter.file.path
        names = list(each.adapter.tensors)
        left = [name for name in names if (file, name) not in used]
        if len(left) == len(names):
            raise UnsupportedError("the adapter changes nothing that is in this file", file=file)
        if heads := [name for name in left if "lm_head" in name]:
            problem = "the adapter changes the model's head, and the files of this model have none of its own"
            raise UnsupportedError(problem, file=file, tensor=heads[0])
        if left:
            log.warning(
                "%s: %d of %d tensors change nothing in this file: %s", file, len(left), len(names), some_of(left)
            )


def files_of(adapters: Sequence[ScaledAdapter]) -> Iterator[Path]:
    """The files of adapters."""
    for each in adapters:
        yield from (each.adapter.file.path, each.adapter.config.path)
