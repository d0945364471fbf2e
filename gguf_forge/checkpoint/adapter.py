"""A LoRA adapter's folder, as PEFT writes it: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from gguf_forge.checkpoint.leftovers import without_wrappers
from gguf_forge.checkpoint.logical import as_stored
from gguf_forge.checkpoint.safetensors_file import StoredTensor, read_safetensors_header
from gguf_forge.checkpoint.shards import has_weights
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.low_rank import LowRank

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

# The prefix that PEFT puts before the base model's names, and the endings of the names of factors.
_WRAPPER = "base_model.model."
_FACTORS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "a",
    ".lora_embedding_B": "b",
}

_OF_DEFAULT = re.compile(r"(\.lora_(?:embedding_)?[AB])\.default(?=\.weight$|$)")


def is_adapter(folder: Folder, *, vocab_only: bool = False) -> bool:
    """Whether a folder holds an adapter and no model. The base model's config.json may be there, which is enough for
    a vocabulary alone."""
    return folder.has(CONFIG) and not (folder.has("config.json") and (vocab_only or has_weights(folder)))


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, opened. `tensors` is in the order in which its file holds them."""

    folder: Folder
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    file: Source

    @classmethod
    def open(cls, folder: Folder) -> Adapter:
        """Opens an adapter's folder.

        Raises:
            InputError: a file is missing or broken.
            UnsupportedError: the adapter is of another kind than LoRA.
        """
        config = read_json_object(folder, CONFIG)
        _check_kind(config, folder)
        if not folder.has(WEIGHTS):
            hint = f"download {WEIGHTS}, too"
            if folder.has("adapter_model.bin"):
                hint = "save the adapter as safetensors: adapter_model.bin is a pickle, which can run code"
            raise InputError("the adapter's weights are missing", file=folder.path / WEIGHTS, hint=hint)
        file = folder.open(WEIGHTS)
        try:
            tensors = sorted(read_safetensors_header(file).values(), key=lambda tensor: tensor.offset)
        except BaseException:
            file.close()
            raise
        return cls(folder, config, {tensor.name: tensor for tensor in tensors}, file)

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Adapter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def changes(self) -> Mapping[str, TensorExpr]:
        """The base model's tensors that the adapter changes: norms as they are, then low-rank pairs.

        Raises:
            InputError: a factor lacks its other one.
            UnsupportedError: a tensor that has no place in an adapter's file.
        """
        whole: dict[str, TensorExpr] = {}
        pairs: dict[str, dict[str, TensorExpr]] = {}
        for stored, tensor in self.tensors.items():
            name = _plain(stored)
            end = next((end for end in _FACTORS if name.endswith(end)), None)
            if end is not None:
                pairs.setdefault(_base_name(name, end), {})[_FACTORS[end]] = as_stored(tensor)
            elif "_layernorm" in name or ".norm" in name:
                whole[name.replace(_WRAPPER, "", 1)] = as_stored(tensor)
            elif ".base_layer.weight" not in name:
                raise UnsupportedError(
                    "an adapter's file has a place for low-rank factors and norms alone",
                    file=self.file.path,
                    tensor=stored,
                    hint="merge the adapter into its base model, and convert that",
                )
        for name, pair in pairs.items():
            if len(pair) < 2:
                raise InputError("one of the two factors is missing", file=self.file.path, tensor=name)
        return whole | {name: _pair(name, pair) for name, pair in pairs.items()}


def _plain(name: str) -> str:
    """A name as `save_pretrained` writes it: without the names of wrapping modules, and without that of the adapter,
    which the state of a model in training has."""
    return _OF_DEFAULT.sub(r"\1", without_wrappers(name))


def _base_name(name: str, end: str) -> str:
    return name.replace(_WRAPPER, "", 1).removesuffix(end) + ".weight"


def _pair(name: str, pair: Mapping[str, TensorExpr]) -> TensorExpr:
    try:
        return LowRank(pair["a"], pair["b"])
    except InputError as error:
        raise InputError(error.problem, tensor=name) from None


def _check_kind(config: Mapping[str, Any], folder: Folder) -> None:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedError(
            f"adapters of kind {kind!r:.40} are not known",
            file=folder.path / CONFIG,
            hint="LoRA is; merge this one into its base model with PEFT's merge_and_unload, and convert that",
        )
    if config.get("use_dora"):
        raise UnsupportedError(
            "DoRA has no place in an adapter's file",
            file=folder.path / CONFIG,
            hint="merge the adapter into its base model, and convert that",
        )
