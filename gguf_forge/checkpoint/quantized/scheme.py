"""What a scheme of quantized storage is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gguf_forge.storage.folder import Folder
from gguf_forge.tensors.expression import TensorExpr

Tensors: TypeAlias = Mapping[str, TensorExpr]


@dataclass(frozen=True)
class Quantization:
    """What a checkpoint says of its quantization.

    Attributes:
        config: `quantization_config` of config.json, or what stands for it.
        folder: The model's folder, for messages.
    """

    config: Mapping[str, Any]
    folder: Folder

    @property
    def method(self) -> str:
        return str(self.config.get("quant_method"))


@dataclass(frozen=True)
class Scheme:
    """A way to store quantized weights.

    Attributes:
        name: What it is called in messages and in the documentation.
        fits: Whether a checkpoint is stored this way.
        logical: From all stored tensors to all logical ones, in the order of the reference's converter.
    """

    name: str
    fits: Callable[[Quantization, Tensors], bool]
    logical: Callable[[Tensors, Quantization], Tensors]
