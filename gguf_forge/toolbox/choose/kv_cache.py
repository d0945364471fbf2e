"""The memory that llama.cpp takes beside the weights: keys and values, which grow with the context, and buffers.

Source: llama.cpp's src/llama-context.cpp, llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-hparams.cpp, and
src/models/*.cpp for the layers that a sliding window has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from gguf_forge.architectures.config import MAX_LAYERS
from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata, Value, ValueType

# Of an F16 number, the default type of the cache; and of a F32 number, the type that it computes in.
_NUMBER_BYTES, _FLOAT_BYTES = 2, 4
# Tokens that llama.cpp computes at a time by default, for which a sliding window has room, too; and the multiple that
# its size is rounded up to.
_UBATCH, _PADDING = 512, 256
# One layer of so many attends to the whole context, where a file does not say it: the last one, or the first one.
_WHOLE_LAST = {
    **dict.fromkeys(("gemma2", "gpt-oss"), 2),
    **dict.fromkeys(("afmoe", "cohere2", "exaone-moe", "exaone4", "llama4", "mellum", "muse-glimmer", "olmo2"), 4),
    "gemma3n": 5,
    "gemma3": 6,
    "plamo3": 8,
}
_WHOLE_FIRST = dict.fromkeys(("cohere2moe", "laguna", "smallthinker"), 4)
# Of so many layers, one has keys and values. The others have a recurrent state instead.
_RECURRENT = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}


def kv_cache_bytes(metadata: Metadata, context: int) -> int:
    """Bytes of the keys and values of one sequence.

    The small state of recurrent layers is not counted.

    Args:
        metadata: The keys of a model's file.
        context: How many tokens there is room for.

    Raises:
        InputError: a key that says how large the model is has no such number.

    Example:
        >>> from gguf_forge.gguf_file.values import string, u32
        >>> sizes = {"block_count": 2, "embedding_length": 64, "attention.head_count": 4}
        >>> keys = {f"llama.{key}": u32(number) for key, number in sizes.items()}
        >>> kv_cache_bytes({"general.architecture": string("llama"), **keys}, 100)
        51200
    """
    model = _Model(metadata)
    if not model.is_causal:
        return 0
    tokens = (model.tokens(layer, context) for layer in range(model.layers))
    return sum(_NUMBER_BYTES * model.width(layer) * n for layer, n in enumerate(tokens))


def buffer_bytes(metadata: Metadata, n_vocabulary: int, context: int) -> int:
    """Bytes of the buffers for computing. They are largest at the model's end: a state and logits for each token.

    Args:
        metadata: The keys of a model's file.
        n_vocabulary: How many tokens the model tells apart.
        context: How many tokens there is room for; with fewer than a batch, the batch is smaller, too.
    """
    model = _Model(metadata)
    return _FLOAT_BYTES * min(_UBATCH, context) * (model.embedding + (n_vocabulary if model.is_causal else 0))


def own_context(metadata: Metadata) -> int | None:
    """How many tokens the model was made for; None if its file does not say it."""
    return _Model(metadata).context or None


@dataclass(frozen=True)
class _Model:
    """The keys of a file, asked by the part of their names that follows the architecture's."""

    metadata: Metadata

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"].data)

    def _get(self, key: str) -> Value | None:
        return self.metadata.get(f"{self.architecture}.{key}")

    def _array(self, key: str) -> Sequence[object] | None:
        """An array with a value for each layer; None if the key is missing, or is a number for all layers."""
        value = self._get(key)
        return value.data if value is not None and value.type is ValueType.ARRAY else None

    def _number(self, key: str, layer: int = 0, *, maximum: int = (1 << 32) - 1) -> int | None:
        """A number that may be different for each layer; None if the key is missing or too short.

        Raises:
            InputError: it is no whole number from 0 to `maximum`.
        """
        value, array = self._get(key), self._array(key)
        if value is None or (array is not None and layer >= len(array)):
            return None
        number = value.data if array is None else array[layer]
        if not isinstance(number, Integral) or not 0 <= int(number) <= maximum:
            said = f"metadata key {self.architecture}.{key} is {number!r:.40}, not a whole number from 0 to {maximum:,}"
            raise InputError(said)
        return int(number)

    @property
    def is_causal(self) -> bool:
        causal = self._get("attention.causal")
        return causal is None or causal.data is not False

    @property
    def layers(self) -> int:
        """The layers that have keys and values of their own; the last ones of some models share those of others."""
        count = self._number("block_count", maximum=MAX_LAYERS) or 0
        return max(0, count - (self._number("attention.shared_kv_layers") or 0))

    def width(self, layer: int) -> int:
        """Numbers that a token takes in a layer."""
        if self._is_recurrent(layer):
            return 0
        heads = self._number("attention.head_count", layer) or 0
        heads_kv = self._number("attention.head_count_kv", layer)
        n_kv = heads if heads_kv is None else heads_kv
        keys, values = self._length("key", layer, heads), self._length("value", layer, heads)
        has_values = self._number("attention.key_length_mla") is None  # latent attention makes values out of keys
        return n_kv * (keys + (values if has_values else 0))

    def _length(self, of: str, layer: int, heads: int) -> int:
        """The length of a head's keys or values."""
        own = self._number(f"attention.{of}_length_swa", layer) if self._slides(layer) else None
        return own or self._number(f"attention.{of}_length", layer) or self.embedding // max(heads, 1)

    @property
    def embedding(self) -> int:
        return self._number("embedding_length") or 0

    @property
    def context(self) -> int:
        return self._number("context_length") or 0

    def _is_recurrent(self, layer: int) -> bool:
        said = self._array("attention.recurrent_layers")
        if said is not None:
            return layer < len(said) and bool(said[layer])
        period = self._number("full_attention_interval") or _RECURRENT.get(self.architecture)
        return self.architecture in _RECURRENT and period is not None and (layer + 1) % period != 0

    def tokens(self, layer: int, context: int) -> int:
        """How many tokens a layer keeps: all of the context, or those of its window."""
        window = self._number("attention.sliding_window")
        if not window or not self._slides(layer):
            return context
        return min(context, -(-(window + _UBATCH) // _PADDING) * _PADDING)

    def _slides(self, layer: int) -> bool:
        if not self._number("attention.sliding_window"):
            return False
        said = self._array("attention.sliding_window_pattern")
        if said is not None:
            return layer < len(said) and bool(said[layer])
        period = self._number("attention.sliding_window_pattern")
        if self.architecture in _WHOLE_FIRST:
            return bool(layer % (period or _WHOLE_FIRST[self.architecture]))
        period = period or _WHOLE_LAST.get(self.architecture)
        return period is not None and layer % period < period - 1
