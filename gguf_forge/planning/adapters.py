"""Adapters that are merged into a checkpoint: how a request names them, and whether the file has a place for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.adapter import WEIGHTS, Adapter
from gguf_forge.checkpoint.adapter_config import CONFIG
from gguf_forge.checkpoint.added_tokens import brings_tokenizer, repeats_embeddings, trains_embeddings
from gguf_forge.checkpoint.merging import ScaledAdapter, changes_head
from gguf_forge.errors import UnsupportedError, UsageError, printable, some_of
from gguf_forge.general import model_id_of
from gguf_forge.general.model_card import read_model_card
from gguf_forge.planning.model_plan import ModelPlan
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.paths import is_folder, is_there
from gguf_forge.tensors.stored import stored_in
from gguf_forge.wording import log_of

log = log_of(__name__)

# What the names of quantized and converted copies of a model have at the end.
_OF_COPIES = re.compile(
    r"([-_.](unsloth|bnb|nf4|gptq|awq|mlx|fp8|fp16|bf16|int[48]|w[48]a(8|16)|[2-8]bit|dynamic|hf))+$"
)


def scaled_adapter(text: str) -> tuple[LocalFolder, float]:
    """The folder and the factor of ADAPTER[:SCALE]. A folder whose name has a colon may be given as it is.

    Raises:
        UsageError: there is no such folder, it holds no adapter, or the factor is no number.
    """
    name, factor = text, 1.0
    if not is_there(Path(text)) and ":" in text:
        name, _, number = text.rpartition(":")
        factor = _factor(number)
    if not name:
        raise UsageError("--lora names no folder", hint="write ADAPTER:SCALE, such as my-adapter:0.5")
    path = Path(name)
    if path.suffix == ".gguf":
        raise UsageError("--lora: this is a GGUF file", file=path, hint="give the folder that PEFT wrote")
    if not is_folder(path):
        hint = f"give the folder that holds {CONFIG} and {WEIGHTS}, and after a colon its factor, if you like"
        raise UsageError("--lora: there is no such folder", file=path, hint=hint)
    folder = LocalFolder(path)
    if not folder.has(CONFIG):
        problem = "--lora: this folder holds no LoRA adapter; --lora takes the folder that PEFT wrote"
        hint = f"give the folder that holds {CONFIG}"
        if folder.has("config.json"):
            hint = f"this is a model's folder; {hint}, and the model itself before --lora"
        raise UsageError(problem, file=path, hint=hint)
    return folder, factor


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = float("nan")
    if not isfinite(factor) or abs(factor) > 1e6:
        raise UsageError(
            f"--lora: {printable(text)} is not a number", hint="write ADAPTER:SCALE, such as my-adapter:0.5"
        )
    return factor


def say_base(adapter: Adapter, folder: Folder, config: Mapping[str, Any]) -> None:
    """Warns of an adapter that names another base model than this one is called by its folder, config or card."""
    named = adapter.config.base_model
    if named is None:
        return
    of_card = read_model_card(folder).get("base_model")
    said = of_card if isinstance(of_card, list) else [of_card]
    names = (model_id_of(folder), config.get("_name_or_path"), *said)
    if _last(named) not in {_last(name) for name in names if isinstance(name, str)}:
        log.warning("%s: the adapter says that its base model is %s", adapter.folder.path, printable(named))


def _last(name: str) -> str:
    """The last part of a model's name or path, without what copies in other types have at the end."""
    return _OF_COPIES.sub("", name.replace("\\", "/").rstrip("/").rpartition("/")[2].casefold())


def check_places(plans: Sequence[ModelPlan], checkpoint: Checkpoint) -> None:
    """Warns of changes that the files have no place for, such as those of another part of the model.

    Args:
        plans: Of the parts that become files.
        checkpoint: What they are made of, with its adapters.

    Raises:
        UnsupportedError: nothing of an adapter is in the files, or not its change of the head.
    """
    if not any(plan.tensors for plan in plans):
        return
    used = {
        (part.source.path, part.name) for plan in plans for tensor in plan.tensors for part in stored_in(tensor.expr)
    }
    has_text = any(plan.part == "main" for plan in plans)
    is_parted = changes_head(checkpoint.adapters) and not any("lm_head" in name for name in checkpoint.tensors)
    has_head = any(tensor.name == "output.weight" for plan in plans for tensor in plan.tensors)
    if has_text and is_parted:
        log.warning(
            "an adapter changes one of the model's head and embeddings, which are the same: the head becomes a tensor "
            "of its own"
        )
    for each in checkpoint.adapters:
        file = each.adapter.file.path
        repeated = {each.adapter.whole()[name].name for name in repeats_embeddings(each.adapter)}
        names = [name for name in each.adapter.tensors if name not in repeated]
        left = [name for name in names if (file, name) not in used]
        if len(left) == len(names):
            raise UnsupportedError("the adapter changes nothing that is in this file", file=file)
        heads = [name for name in left if "lm_head" in name]
        if has_text and (heads or (is_parted and not has_head and trains_embeddings(each.adapter))):
            what = "the model's head" if heads else "the embeddings apart from the model's head"
            problem = f"the adapter changes {what}, and the files of this model have no head of its own"
            raise UnsupportedError(problem, file=file, tensor=heads[0] if heads else None)
        if left:
            log.warning(
                "%s: %d of %d tensors change nothing in this file: %s", file, len(left), len(names), some_of(left)
            )


def folder_of_tokenizer(source: Path, lora: Sequence[str]) -> Path:
    """The folder whose tokenizer a file has: the model's, or that of an adapter which brings embeddings."""
    for folder, _ in map(scaled_adapter, reversed(lora)):
        with Adapter.open(folder) as adapter:
            if brings_tokenizer(adapter):
                return folder.path
    return source


def files_of(adapters: Sequence[ScaledAdapter]) -> Iterator[Path]:
    """The files of adapters."""
    for each in adapters:
        yield from (each.adapter.file.path, each.adapter.config.path)
