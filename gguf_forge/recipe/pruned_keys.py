"""The keys of a file whose layers were pruned: lists with an item for each layer, and counts of layers.

llama-quantize changes `block_count` alone, and llama.cpp does not load a file whose lists have another length.
Source: the keys that llama.cpp reads for each layer (`get_key_or_arr` and `get_arr` in src/).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, Value, ValueType
from gguf_forge.recipe.pruning import layer_numbers

# Lists that have no item for each layer, even if they are as long as the model is deep.
_OTHER_LISTS = ("rope.dimension_sections", "classifier.output_labels", "adapter.", "ple.", "target_layers", "hrm.")
# How many of the first layers, or of the last ones, are special.
_FIRST = ("leading_dense_block_count", "hash_layer_count", "decoder_block_count")
_LAST = ("nextn_predict_layers", "attention.shared_kv_layers")
# What is true of a layer because of its number.
_BY_NUMBER = (
    *("attention.sliding_window_pattern", "full_attention_interval", "interleave_moe_layer_step"),
    *("moe_every_n_layers", "rescale_every_n_layers", "ple.layers", "target_layers", "hrm.layers_per_stack"),
)


def keys_after_pruning(
    tensors: Iterable[TensorInfo], metadata: Metadata, architecture: str, pruned: Sequence[int]
) -> Mapping[str, Value]:
    """The keys that tell of single layers, as they are after some layers were pruned; only those that change.

    Args:
        tensors: Those of the file before.
        metadata: Its keys.
        architecture: The beginning of the keys' names.
        pruned: The numbers of the layers that go.

    Raises:
        UsageError: no layer stays.
    """
    numbers = layer_numbers(tensors, pruned)
    depths = _depths(metadata, architecture)
    origins = {new: old for old, new in numbers.items()}
    changed: dict[str, Value] = {}
    for key, value in metadata.items():
        own, found = key.removeprefix(f"{architecture}."), None
        if not key.startswith((f"{architecture}.", "xielu.")):
            continue
        if value.type is ValueType.ARRAY and len(value.data) in depths and not own.startswith(_OTHER_LISTS):
            kept = (origins.get(new, new) for new in range(max(numbers.values()) + 1))
            found = replace(value, data=tuple(value.data[old] for old in kept if old < len(value.data)))
        elif own in _FIRST and isinstance(value.data, int):
            found = replace(value, data=value.data - sum(layer < value.data for layer in pruned))
        elif own in _LAST and isinstance(value.data, int):
            last = range(max(0, max(depths, default=0) - value.data), max(depths, default=0))
            found = replace(value, data=value.data - sum(layer in last for layer in pruned))
        if found is not None and found != value:
            changed[key] = found
    return changed


def keys_by_number(metadata: Metadata, architecture: str) -> tuple[str, ...]:
    """The keys that tell what a layer is by its number. They may be wrong after layers moved."""
    named = (f"{architecture}.{own}" for own in _BY_NUMBER)
    return tuple(
        key for key in named if key in metadata and len(_items(metadata[key])) not in _depths(metadata, architecture)
    )


def _items(value: Value) -> Sequence[object]:
    return value.data if value.type is ValueType.ARRAY else ()


def _depths(metadata: Metadata, architecture: str) -> tuple[int, ...]:
    """How many layers the model has, and how many without those for multi-token prediction."""
    counts = [metadata.get(f"{architecture}.{name}") for name in ("block_count", "nextn_predict_layers")]
    depth, extra = (value.data if value is not None and isinstance(value.data, int) else 0 for value in counts)
    return tuple({depth, depth - extra} - {0})
