"""The metadata of a quantized file. Source: llama.cpp's src/llama-quant.cpp and ggml's src/gguf.cpp."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.packed_items import as_c_strings
from gguf_forge.gguf_file.split import SPLIT_KEYS
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, string, u32
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
from gguf_forge.recipe.model_facts import ModelFacts
from gguf_forge.recipe.options import Options
from gguf_forge.recipe.pruned_keys import keys_after_pruning
from gguf_forge.recipe.pruning import layer_numbers
from gguf_forge.recipe.tensor_rules import file_order
from gguf_forge.types.tensor_type import TensorType

_QUANTIZATION_VERSION = 2
_GUESSED = 1024
_MAX_BYTES = 127


def quantized_metadata(tensors: Sequence[TensorInfo], metadata: Metadata, options: Options) -> Metadata:
    """The keys of the file that llama-quantize would write, in its order.

    Keys are copied in order, and a key with a new value moves to the end. Strings end at their first NUL, as
    they do in the reference.

    Args:
        tensors: Those of the base file, in any order.
        metadata: That of the base file.

    Raises:
        InputError: the metadata lacks the architecture.

    Example:
        >>> from gguf_forge.recipe.file_types import FileType
        >>> base = {"general.file_type": u32(0), "a.b": u32(1)}
        >>> list(quantized_metadata([], base, Options(FileType.named("Q8_0"))))
        ['a.b', 'general.quantization_version', 'general.file_type']
    """
    changes: list[tuple[str, Value]] = [
        ("general.quantization_version", u32(_QUANTIZATION_VERSION)),
        ("general.file_type", u32(_file_type_id(tensors, metadata, options))),
        *((override.key, override.value) for override in options.key_overrides),
        *(_provenance(options.imatrix) if options.imatrix and options.has_imatrix else ()),
    ]
    if options.prune_layers:
        architecture = ModelFacts.read(metadata, options.key_overrides).architecture
        numbers = layer_numbers(tensors, options.prune_layers)
        changes.append((f"{architecture}.block_count", u32(max(numbers.values()) + 1)))
    result = {key: as_c_strings(value) for key, value in metadata.items() if key not in SPLIT_KEYS}
    if options.prune_layers and not options.as_reference:
        result |= keys_after_pruning(tensors, metadata, architecture, options.prune_layers)
    for key, value in changes:
        result.pop(key, None)
        result[key] = value
    return result


def _file_type_id(tensors: Iterable[TensorInfo], metadata: Metadata, options: Options) -> int:
    if options.file_type.id is not None:
        return options.file_type.id
    # With COPY, the file type of the source is kept. If it has none, it is guessed from the most frequent tensor type.
    overridden = [o.value for o in options.key_overrides if o.key == "general.file_type"]
    stated = next((v for v in overridden if v.type is ValueType.UINT32), metadata.get("general.file_type"))
    if stated is not None:
        if stated.type is not ValueType.UINT32:
            raise InputError("metadata key general.file_type is not a UINT32")
        return int(stated.data)
    return _GUESSED | _guess([info.type for info in sorted(tensors, key=file_order)])


def _guess(types: Sequence[TensorType]) -> int:
    """The file type of the most frequent tensor type. Among several, the one that reaches the highest count first."""
    highest = max(Counter(types).values(), default=0)
    seen: Counter[TensorType] = Counter()
    for tensor_type in types:
        seen[tensor_type] += 1
        if seen[tensor_type] == highest:
            return tensor_type.file_type or 0
    return 0


def _provenance(imatrix: ImportanceMatrix) -> Iterable[tuple[str, Value]]:
    yield "quantize.imatrix.file", _cut(imatrix.file)
    if imatrix.datasets:
        yield "quantize.imatrix.dataset", _cut(imatrix.datasets[0])
    yield "quantize.imatrix.entries_count", u32(len(imatrix.importance))
    if imatrix.chunks > 0:
        yield "quantize.imatrix.chunks_count", u32(imatrix.chunks)


def _cut(text: str) -> Value:
    raw = text.encode(errors="surrogateescape")
    return string(text if len(raw) <= _MAX_BYTES else raw[:_MAX_BYTES])
