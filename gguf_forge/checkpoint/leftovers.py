"""Takes off what training tools leave in a checkpoint: the names of wrappers in tensor names, and value heads.

No model has these names of its own, so this needs no declaration of a family.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

from gguf_forge.checkpoint.safetensors_file import StoredTensor
from gguf_forge.errors import some_of
from gguf_forge.wording import log_of

log = log_of(__name__)

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
# PEFT's names for a layer that it trained as a whole, and for the layer before that.
_TRAINED, _UNTRAINED = "modules_to_save.default", "original_module"
# Tables of rotary embeddings, which a model computes itself, and scales of its cache, which no file has a place for.
_BUFFERS = (".rotary_emb.cos_cached", ".rotary_emb.sin_cached")
_SCALES_OF_CACHE = (".k_scale", ".v_scale", ".kv_scale")
# Modules that estimate rewards while a model is trained by reinforcement learning. Sources: TRL, OpenRLHF, trlX.
_VALUE_HEADS = ("v_head.", "value_head.", "ilql_heads.")
# The most wrappers around each other that are looked for.
_MOST_WRAPPERS = 4

Tensors = Mapping[str, StoredTensor]


def tidied(tensors: Tensors, folder: Path) -> Tensors:
    """The tensors of a model without its wrappers, a value head, and buffers; a warning says what was done.

    Args:
        tensors: By the names in the files.
        folder: The model's, for messages.
    """
    tensors = _without(tensors, _is_buffer, "tables and scales that a model makes itself are", folder, logging.INFO)
    for _ in range(_MOST_WRAPPERS):
        tensors = _without(tensors, _is_of_value_head, "the value head of reinforcement learning is", folder)
        tensors = _without_prefix(_without_modules(_with_trained(tensors, folder), folder), folder)
    return tensors


def without_wrappers(name: str) -> str:
    """The name of one tensor without the names of wrapping modules.

    Example:
        >>> without_wrappers("base_model.model._orig_mod.model.norm.weight")
        'base_model.model.model.norm.weight'
    """
    return ".".join(each for each in name.split(".") if each not in _WRAPPING_MODULES)


def _is_buffer(tensor: StoredTensor) -> bool:
    return tensor.name.endswith(_BUFFERS) or (tensor.name.endswith(_SCALES_OF_CACHE) and prod(tensor.shape) == 1)


def _is_of_value_head(tensor: StoredTensor) -> bool:
    return tensor.name.startswith(_VALUE_HEADS)


def _without(
    tensors: Tensors,
    is_left_out: Callable[[StoredTensor], bool],
    what: str,
    folder: Path,
    level: int = logging.WARNING,
) -> Tensors:
    """The tensors except some; all of them if nothing else would be left."""
    kept = {name: tensor for name, tensor in tensors.items() if not is_left_out(tensor)}
    if not kept or len(kept) == len(tensors):
        return tensors
    log.log(level, "%s: %s left out: %s", folder, what, some_of([name for name in tensors if name not in kept]))
    return kept


def _with_trained(tensors: Tensors, folder: Path) -> Tensors:
    """The layers that PEFT trained as a whole in the place of those before the training."""
    if not any(_TRAINED in name for name in tensors) or _has_adapter(tensors):
        return tensors
    kept = {name: tensor for name, tensor in tensors.items() if _UNTRAINED not in name.split(".")}
    return _renamed(kept, lambda name: name.replace(f".{_TRAINED}.", ".", 1), _TRAINED, "PEFT", folder)


def _has_adapter(names: Iterable[str]) -> bool:
    return any(_ADAPTER in name for name in names)


def _without_modules(tensors: Tensors, folder: Path) -> Tensors:
    for module, who in (_WRAPPING_MODULES if _has_adapter(tensors) else _WRAPPING_MODULES | _BASE_LAYER).items():
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
