"""Removing whole layers: --prune-layers. Source: llama.cpp's src/llama-quant.cpp."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gguf_forge.errors import UsageError
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.recipe.tensor_rules import file_order

# Unlike the order of tensors, pruning also applies to layers after a prefix, as in `enc.blk.0`.
_LAYER = re.compile(r"blk\.([0-9]+)\.")


def prune(tensors: Iterable[TensorInfo], layers: Sequence[int]) -> tuple[tuple[TensorInfo, str], ...]:
    """The tensors outside `layers`, in file order, each with its name after the layers above moved down.

    Raises:
        UsageError: nothing but pruned layers.
    """
    ordered = sorted(tensors, key=file_order)
    if not layers:
        return tuple((info, info.name) for info in ordered)
    numbers = layer_numbers(ordered, layers)
    kept = []
    for info in ordered:
        found = _LAYER.search(info.name)
        if found is None:
            kept.append((info, info.name))
        elif int(found[1]) in numbers:
            number = numbers[int(found[1])]
            kept.append((info, f"{info.name[: found.start(1)]}{number}{info.name[found.end(1) :]}"))
    return tuple(kept)


def layer_numbers(tensors: Iterable[TensorInfo], pruned: Sequence[int]) -> dict[int, int]:
    """The number after pruning of each layer that stays, by its number before.

    Layers are numbered in the order in which the file has them; those below the first pruned one keep their number.

    Raises:
        UsageError: no layer stays.
    """
    numbers: dict[int, int] = {}
    following = 0
    for info in sorted(tensors, key=file_order):
        found = _LAYER.search(info.name)
        layer = int(found[1]) if found else None
        if layer is None or layer in numbers or layer in pruned:
            continue
        numbers[layer] = layer if layer < min(pruned) else following
        following = numbers[layer] + 1
    if not numbers:
        raise UsageError("--prune-layers leaves no layer")
    return numbers
