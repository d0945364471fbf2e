"""The type of a scheme, which is one way to store quantized weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gguf_forge.storage.folder import Folder
from gguf_forge.tensors.expression import TensorExpr

Tensors: TypeAlias = Mapping[str, TensorExpr]


@dataclass(frozen=True)
class Quantization:
    """A checkpoint's description of its quantization.

    Attributes:
        config: `quantization_config` of config.json, or the object that replaces it.
        folder: The model's folder, for messages.
        as_reference: Whether weights get the values that the reference's converter gives them by mistake.
    """

    config: Mapping[str, Any]
    folder: Folder
    as_reference: bool = False

    @property
    def method(self) -> str:
        return str(self.config.get("quant_method"))


@dataclass(frozen=True)
class Scheme:
    """A way to store quantized weights.

    Attributes:
        name: Its name in messages and in the documentation.
        fits: Whether a checkpoint is stored in this way.
        logical: Makes all logical tensors from all stored ones, in the order of the reference's converter.
    """

    name: str
    fits: Callable[[Quantization, Tensors], bool]
    logical: Callable[[Tensors, Quantization], Tensors]
