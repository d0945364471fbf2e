"""The facts about a model that the type rules need, read from its metadata.

Source: llama.cpp's src/llama-model.cpp (load_hparams), src/llama-hparams.cpp and src/models/.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata, Value, ValueType
from gguf_forge.recipe.options import KeyOverride

# Architecture -> number of layers at which the reference calls a model "70B".
_LAYERS_OF_70B = {"llama": 80, "llama-embed": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}


@dataclass(frozen=True)
class ModelFacts:
    """`n_layers` also counts layers for multi-token prediction, whose numbers are in `predicting`; `gqa` is the heads
    per key-value head of layer 0."""

    architecture: str
    n_layers: int
    n_experts: int
    gqa: int
    is_70b: bool
    predicting: range = range(0)

    @classmethod
    def read(cls, metadata: Metadata, overrides: Iterable[KeyOverride] = ()) -> ModelFacts:
        """Read the facts as the reference does, which lets `--override-kv` change them.

        Raises:
            InputError: the architecture or the number of layers is missing, or a number is no whole number.
        """
        # The reference takes the first override of a key when it reads, but writes the last.
        overridden = {override.key: override.value for override in reversed(tuple(overrides))}
        architecture = _text("general.architecture", metadata, overridden)

        def number(key: str, default: int | None = None) -> int:
            return _number(f"{architecture}.{key}", default, metadata, overridden)

        # The layers of a vision or audio tower are not counted, because the rules for depth never apply to them.
        n_layers = number("block_count", 0 if architecture == "clip" else None)
        n_repeated = n_layers - number("nextn_predict_layers", 0)
        predicting = range(max(0, n_repeated), n_layers)
        n_experts = number("expert_count", 0)
        n_head = number("attention.head_count", 0)
        n_head_kv = number("attention.head_count_kv", n_head)
        is_70b = n_repeated == _LAYERS_OF_70B.get(architecture)
        if architecture.startswith("llama"):
            is_70b = is_70b and n_experts != 8 and n_head != n_head_kv
        if architecture == "nanbeige":
            n_layers = n_repeated * number("num_loops", 1)
        elif architecture == "graniteswitch":
            n_layers = n_repeated + 1
        gqa = n_head // n_head_kv if n_head_kv else 0
        return cls(architecture, n_layers, n_experts, gqa, is_70b, predicting)


def _text(key: str, metadata: Metadata, overridden: Metadata) -> str:
    for values in (overridden, metadata):
        value = values.get(key)
        if value is not None and isinstance(value.data, str):
            return value.data
    raise InputError(f"metadata lacks {key}", hint="a model file names its architecture")


def _number(key: str, default: int | None, metadata: Metadata, overridden: Metadata) -> int:
    value = metadata.get(key)
    override = overridden.get(key)
    # Like llama.cpp, we ignore an override of another type, and an override of an array, when the key is read.
    if override is not None and override.type is ValueType.UINT32 and not _is_array(value):
        return int(override.data)
    if value is None:
        if default is None:
            raise InputError(f"metadata lacks {key}")
        return default
    number = value.data[0] if _is_array(value) and value.data else value.data
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise InputError(f"metadata key {key} is not a whole number")
    return number


def _is_array(value: Value | None) -> bool:
    return value is not None and value.type is ValueType.ARRAY
