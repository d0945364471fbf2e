"""A LoRA adapter's folder, as PEFT writes it: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

from gguf_forge.checkpoint.adapter_config import CONFIG, AdapterConfig
from gguf_forge.checkpoint.as_stored import as_stored, widened
from gguf_forge.checkpoint.leftovers import without_wrappers
from gguf_forge.checkpoint.safetensors_file import MAX_TENSORS, StoredTensor, read_safetensors_header
from gguf_forge.checkpoint.shards import has_weights
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import TensorExpr

WEIGHTS = "adapter_model.safetensors"

# The prefix that PEFT puts before the base model's names, and its name for a layer that has an adapter.
WRAPPER, _BASE_LAYER = "base_model.model.", ".base_layer"
# The endings of the names of an adapter's own tensors, and what each is.
_PARTS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "a",
    ".lora_embedding_B": "b",
    ".lora_B.bias": "bias",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}
_OF_DEFAULT = re.compile(r"(\.lora_(?:embedding_[AB]|[AB]|magnitude_vector))\.default(?=\.weight$|\.bias$|$)")
# The types of an adapter's weights. Integers would be codes whose scales are not in the file.
_FLOATS = ("F64", "F32", "F16", "BF16")
# The types of what a trained module holds beside its weights, such as positions.
_OF_BUFFERS = ("I64", "BOOL")
_WEIGHT_ENDS = (".weight", ".bias", ".trainable_tokens_delta")
# The names of modules that PEFT puts around one that is trained as a whole, around one of which rows are trained, and
# what is trained of its rows.
_TRAINED, _UNTRAINED, _TRAINED_OF = (
    re.compile(r"\.modules_to_save\.(default\.)?"),
    ".original_module.",
    ".token_adapter",
)
TRAINED_ROWS = f"{_TRAINED_OF}.trainable_tokens_delta"


def is_adapter(folder: Folder, *, vocab_only: bool = False) -> bool:
    """Whether a folder holds an adapter and no model. The base model's config.json may be there, which is enough for
    a vocabulary alone."""
    return folder.has(CONFIG) and not (folder.has("config.json") and (vocab_only or has_weights(folder)))


@dataclass(frozen=True)
class LowRankPair:
    """The tensors of an adapter for one module of the base model.

    Attributes:
        module: The module's name in the base model.
        of_embedding: A has a column for each row of the embeddings, and B a row for each of their columns.
        a, b: The factors as they are stored.
        bias: What the adapter's own layer adds to the module's bias.
        magnitude: The lengths of DoRA.
        depth: How many other parameters of the same module have pairs that PEFT put around this one. It puts pairs of
            parameters, such as stacked experts, around each other, the module's first parameter innermost.
    """

    module: str
    of_embedding: bool
    a: TensorExpr
    b: TensorExpr
    bias: TensorExpr | None = None
    magnitude: TensorExpr | None = None
    depth: int = 0

    @property
    def rank(self) -> int:
        """The rank, if this is no pair of stacked experts."""
        return self.a.shape[0]


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, opened. `tensors` is in the order in which its file holds them."""

    folder: Folder
    config: AdapterConfig
    tensors: Mapping[str, StoredTensor]
    file: Source

    @classmethod
    def open(cls, folder: Folder) -> Adapter:
        """Opens an adapter's folder.

        Raises:
            InputError: a file is missing or broken.
            UnsupportedError: the adapter is of another kind than LoRA.
        """
        config = AdapterConfig.read(folder)
        if not folder.has(WEIGHTS):
            hint = f"also download {WEIGHTS}"
            if folder.has("adapter_model.bin"):
                hint = "save the adapter as safetensors: adapter_model.bin is a pickle, which can run code"
            raise InputError("the adapter's weights are missing", file=folder.path / WEIGHTS, hint=hint)
        file = folder.open(WEIGHTS)
        try:
            tensors = sorted(read_safetensors_header(file).values(), key=lambda tensor: tensor.offset)
        except BaseException:
            file.close()
            raise
        held = {tensor.name: tensor for tensor in tensors if _UNTRAINED not in tensor.name}
        # With embeddings of another number of rows, PEFT stores those that it trained twice.
        twice = {name for name in held if (plain := _TRAINED.sub(".", name)) != name and plain in held}
        return cls(folder, config, {name: tensor for name, tensor in held.items() if name not in twice}, file)

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Adapter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pairs(self) -> tuple[LowRankPair, ...]:
        """Its low-rank pairs, in the order of its file.

        Raises:
            InputError: a factor lacks its other one, or is no matrix of floats.
        """
        return self._pairs

    @cached_property
    def _pairs(self) -> tuple[LowRankPair, ...]:
        found: dict[str, dict[str, StoredTensor]] = {}
        embeddings: set[str] = set()
        for stored, name in self._names.items():
            if (end := _end_of(name)) is not None:
                module = name.removesuffix(end)
                found.setdefault(module, {})[_PARTS[end]] = self.tensors[stored]
                embeddings |= {module} if "_embedding_" in end else set()
        return tuple(self._pair(module, parts, module in embeddings) for module, parts in found.items())

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """The plain name of each tensor."""
        return {stored: _plain(stored) for stored in self.tensors}

    def _pair(self, module: str, parts: Mapping[str, StoredTensor], of_embedding: bool) -> LowRankPair:
        if "a" not in parts or "b" not in parts:
            raise InputError("one of the two factors is missing", file=self.file.path, tensor=module)
        for part, tensor in parts.items():
            self._check_float(tensor)
            if len(tensor.shape) < (2 if part in "ab" else 1) or 0 in tensor.shape:
                problem = f"{tensor.name} has the shape {tensor.shape}, which no factor of an adapter has"
                raise InputError(problem, file=self.file.path, tensor=module)
        of_pair = {part: widened(as_stored(tensor)) for part, tensor in parts.items()}
        return LowRankPair(module.replace(_BASE_LAYER, ""), of_embedding, **of_pair, depth=module.count(_BASE_LAYER))

    def _check_float(self, tensor: StoredTensor) -> None:
        if tensor.dtype not in _FLOATS:
            hint = f"save the adapter in one of the types {', '.join(_FLOATS)}"
            problem = f"the tensor has the type {tensor.dtype}, in which no adapter is read"
            raise InputError(problem, file=self.file.path, tensor=tensor.name, hint=hint)

    def whole(self, *, with_base: bool = True) -> Mapping[str, StoredTensor]:
        """The tensors that replace those of the base model, by their names in it.

        Args:
            with_base: Also the weights of embeddings before their low-rank change, which PEFT stores beside it.

        Raises:
            InputError: weights are no floats.
        """
        return self._whole if with_base else self._of(lambda name: not name.endswith(f"{_BASE_LAYER}.weight"))

    @cached_property
    def _whole(self) -> Mapping[str, StoredTensor]:
        return self._of(lambda name: True)

    def _of(self, is_wanted: Callable[[str], bool]) -> Mapping[str, StoredTensor]:
        for stored, name in self._names.items():
            is_buffer = self.tensors[stored].dtype in _OF_BUFFERS and not name.endswith(_WEIGHT_ENDS)
            if _end_of(name) is None and not is_buffer:
                self._check_float(self.tensors[stored])
        return {
            name.replace(f"{_TRAINED_OF}{_BASE_LAYER}", "").replace(_BASE_LAYER, ""): self.tensors[stored]
            for stored, name in self._names.items()
            if _end_of(name) is None and is_wanted(name)
        }


def refuse_too_many(n_tensors: int, folder: Path) -> None:
    """Raises InputError if adapters have so many tensors together, the last of them in `folder`, as no model has."""
    if n_tensors > MAX_TENSORS:
        raise InputError(
            f"with this adapter, all have more than the {MAX_TENSORS:,} tensors that are read", file=folder
        )


def _plain(name: str) -> str:
    """A name as `save_pretrained` writes it, without the prefix: without the names of wrapping modules, and without
    that of the adapter, which the state of a model in training has."""
    plain = _OF_DEFAULT.sub(r"\1", without_wrappers(name))
    return _TRAINED.sub(".", plain).replace(WRAPPER, "", 1)


def _end_of(name: str) -> str | None:
    return next((end for end in _PARTS if name.endswith(end)), None)


def refuse_in_file(adapter: Adapter, what: str, name: str | None = None) -> UnsupportedError:
    """The error for what an adapter holds and an adapter's file has no place for."""
    return UnsupportedError(
        f"an adapter's file cannot hold {what}",
        file=adapter.file.path if name is not None else adapter.folder.path / CONFIG,
        tensor=name,
        hint=f"merge it on the fly: `gguf-forge convert BASE --lora {adapter.folder.path}`",
    )
