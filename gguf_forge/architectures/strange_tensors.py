"""The errors for checkpoint tensors that no file can take, with what their names and shapes tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gguf_forge.architectures.templates import group_names
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, printable, some_of
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.element_type import ElementType

# Types of stored numbers that are weights only together with scales.
_TYPES_OF_CODES = frozenset(("U8", "I8", "U32", "F8_E4M3", "F8_E5M2", "F4"))
_ADAPTER = re.compile(r"\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\b")
_CODES = (".qweight", ".qzeros", ".scales", ".absmax", ".SCB", ".weight_packed", ".weight_scale", ".weight_scale_inv")
_OF_LAYERS = re.compile(
    r"^(model|lm_head|transformer|language_model|encoder|decoder|layers|backbone)\.|\.(layers|h|blocks)\.[0-9]"
)
_MOST_LETTERS = 60
# The most beginnings of names that a hint lists.
_MOST_MODULES = 4


def unknown_tensors(architecture: str, names: Sequence[str]) -> ForgeError:
    """The error for tensors that a declaration does not know.

    Args:
        architecture: The name of the declaration.
        names: All of them.
    """
    return UnsupportedError(
        f"{len(names)} tensor{'' if len(names) == 1 else 's'} of the checkpoint {'is' if len(names) == 1 else 'are'} "
        f"not known for the {architecture} architecture:\n  " + "\n  ".join(group_names(names)),
        hint=_hint(names),
    )


def _hint(names: Sequence[str]) -> str:
    if any(_ADAPTER.search(name) for name in names):
        return "these are an adapter that is not merged: merge it with PEFT's merge_and_unload, and save that model"
    if any(name.endswith(_CODES) for name in names):
        return (
            "these are parts of quantized weights, and config.json does not say how they are quantized: take the "
            "config.json that belongs to them, or convert the original"
        )
    question = "is config.json that of these weights?"
    modules = list(dict.fromkeys(name.partition(".")[0] for name in names))
    patterns = [rf"^{re.escape(module)}\." for module in modules]
    # Tensors inside of a model's layers are hardly ever something that the model does without.
    if len(modules) > _MOST_MODULES or any(_OF_LAYERS.search(name) for name in names):
        return question
    if any(len(module) > _MOST_LETTERS or not module.isprintable() for module in modules):
        return question
    options = " ".join(f"--drop-tensor '{pattern}'" for pattern in patterns)
    return f"{question} If the model does without them, leave them out with {options}"


def strange_type(dtype: ElementType, shape: tuple[int, ...]) -> ForgeError:
    """The error for a tensor whose stored numbers are no weights by themselves."""
    if dtype.name in _TYPES_OF_CODES and len(shape) > 1:
        return InputError(
            f"has codes of type {dtype}, and their scales are missing",
            hint="is a shard missing, or the quantization_config in config.json?",
        )
    return UnsupportedError(
        f"data type {dtype} is not supported yet", hint="weights are F64, F32, F16, BF16, FP8 or integers"
    )


def empty_tensors(name: str, tensors: Mapping[str, TensorExpr]) -> ForgeError:
    """The error for a tensor without elements.

    Args:
        name: The first one that the model needs.
        tensors: All tensors of the checkpoint.
    """
    empty = [each for each, expr in tensors.items() if 0 in expr.shape]
    shape = list(tensors[name].shape)
    if shape != [0]:
        return InputError(f"a tensor of shape {shape} holds nothing to convert", tensor=name)
    return InputError(
        f"{len(empty)} of {len(tensors)} tensors have no elements: {some_of(empty)}",
        tensor=printable(name),
        hint="the model was saved under DeepSpeed ZeRO-3 or FSDP without its weights: run the zero_to_fp32.py "
        "of the training checkpoint, or save again with stage3_gather_16bit_weights_on_model_save",
    )
