"""Takes off what training tools leave in a checkpoint: the names of wrappers in tensor names, and value heads.

No model has these names of its own, so this needs no declaration of a family.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from gguf_forge.checkpoint.safetensors_file import StoredTensor
from gguf_forge.errors import some_of

log = logging.getLogger(__name__)

# A part of a name anywhere in it -> who puts it there.
_WRAPPING_MODULES = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_fpw_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning",
}
# PEFT's name for a layer that has an adapter. Without the adapter's own tensors, it is a layer like any other.
_BASE_LAYER = {"base_layer": "PEFT"}
_ADAPTER = ".lora_"
# The beginning of all names -> who puts it there.
_PREFIXES = {
    "module.": "DistributedDataParallel or DeepSpeed",
    "base_model.model.": "PEFT",
    "pretrained_model.": "TRL",
    "model.": "a wrapper such as a LightningModule",
}
# Modules that estimate rewards while a model is trained by reinforcement learning. Sources: TRL, OpenRLHF, trlX.
_VALUE_HEADS = ("v_head.", "value_head.", "ilql_heads.")
# The most wrappers around each other that are looked for.
_MOST_WRAPPERS = 4

Tensors = Mapping[str, StoredTensor]


def tidied(tensors: Tensors, folder: Path) -> Tensors:
    """The tensors of a model without its wrappers and without a value head; a warning says what was done.

    Args:
        tensors: By the names in the files.
        folder: The model's, for messages.
    """
    for _ in range(_MOST_WRAPPERS):
        tensors = _without_prefix(_without_modules(_without_value_head(tensors, folder), folder), folder)
    return tensors


def _without_value_head(tensors: Tensors, folder: Path) -> Tensors:
    heads = [name for name in tensors if name.startswith(_VALUE_HEADS)]
    if not heads or len(heads) == len(tensors):
        return tensors
    log.warning("%s: the value head of reinforcement learning is left out: %s", folder, some_of(heads))
    return {name: tensor for name, tensor in tensors.items() if name not in set(heads)}


def _without_modules(tensors: Tensors, folder: Path) -> Tensors:
    has_adapter = any(_ADAPTER in name for name in tensors)
    for module, who in (_WRAPPING_MODULES if has_adapter else _WRAPPING_MODULES | _BASE_LAYER).items():
        if any(module in name.split(".") for name in tensors if module in name):
            tensors = _renamed(tensors, partial(_without_part, module), module, who, folder)
    return tensors


def _without_part(part: str, name: str) -> str:
    return ".".join(each for each in name.split(".") if each != part)


def _without_prefix(tensors: Tensors, folder: Path) -> Tensors:
    prefix = next((prefix for prefix in _PREFIXES if _is_wrapper(prefix, tensors)), None)
    if prefix is None:
        return tensors
    return _renamed(tensors, lambda name: name.removeprefix(prefix), prefix, _PREFIXES[prefix], folder)


def _is_wrapper(prefix: str, names: Iterable[str]) -> bool:
    """Whether all names begin with the prefix, and the model's own names do not. Models have modules `model`, too:
    only if there is a second one in it, the first one is a wrapper."""
    if not all(name.startswith(prefix) for name in names):
        return False
    return prefix != "model." or any(name.startswith("model.model.") for name in names)


def _renamed(tensors: Tensors, rename: Callable[[str], str], what: str, who: str, folder: Path) -> Tensors:
    """The tensors under other names, in the order that these have in each file. Nothing is renamed if two tensors would
    then have the same name, or one would have none."""
    shards = {tensor.source.path: number for number, tensor in enumerate(tensors.values())}
    found = [replace(tensor, name=rename(name)) for name, tensor in tensors.items()]
    found.sort(key=lambda tensor: (shards[tensor.source.path], tensor.name))
    if len({tensor.name for tensor in found} - {""}) < len(tensors):
        return tensors
    log.warning("%s: %r is taken out of the tensors' names: %s puts it there", folder, what, who)
    return {tensor.name: tensor for tensor in found}
