"""Lines of metadata tables for small checkpoint tensors that the file holds as keys, there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gguf_forge.architectures.declaration import MetadataLine
from gguf_forge.architectures.metadata import Lines
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.templates import fill
from gguf_forge.errors import InputError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import Value, ValueType
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Constant, Integers, OneValue

_INSIDE = "model.language_model."


@dataclass(frozen=True)
class KeyTensor:
    """A number that checkpoints have as a tensor: one for the model, or one for each layer.

    Attributes:
        key: The key that has it: a float, or an array with one for each layer.
        name: The tensor's name, with `{i}` if each layer has one.
        shape: The tensor's shape in checkpoints, of one value.
    """

    key: str
    name: str
    shape: tuple[int, ...] = (1,)

    def __call__(self, site: Site) -> Lines:
        if "{i}" in self.name:
            names = [fill(self.name, layer) for layer in range(site.block_count)]
            yield self.key, values.array(ValueType.FLOAT32, tuple(_number(site, name) for name in names))
        elif self.name in site.tensors:
            yield self.key, values.f32(_number(site, self.name))

    def led_back(self, value: Value, keys: Mapping[str, Value]) -> dict[str, TensorExpr]:
        """The tensors that the key was made of."""
        numbers = value.data if value.type is ValueType.ARRAY else (value.data,)
        vectors = (Constant(np.array([number], np.float32)) for number in numbers)
        return {fill(self.name, layer): OneValue(each, self.shape) for layer, each in enumerate(vectors)}


def _number(site: Site, name: str) -> float:
    return float(site.peek(name).reshape(-1)[0])


@dataclass(frozen=True)
class KeyTable:
    """Integers that checkpoints have as a tensor, in the first of the layers that a key names.

    Attributes:
        key: The key that has them: an array of 64 bits each.
        name: The tensor's name, with `{i}`.
        layers: The key with the layers.
        when: Whether the model has them.
    """

    key: str
    name: str
    layers: str
    when: Callable[[Site], bool]

    def __call__(self, site: Site) -> Lines:
        if not (site.tensors and self.when(site)):
            return
        stored = next((each for each in site.tensors if each.endswith(self.name.partition("{i}")[2])), self.name)
        found = site.peek_integers(stored)
        if any(not 0 <= each < 2**63 for each in found):
            raise InputError("has negative numbers", tensor=stored)
        yield self.key, values.array(ValueType.UINT64, found)

    def led_back(self, value: Value, keys: Mapping[str, Value]) -> dict[str, TensorExpr]:
        """The tensor that the key was made of."""
        layers = keys.get(self.layers)
        return {fill(self.name, int(layers.data[0])): Integers(tuple(value.data))} if layers is not None else {}


def tensors_of_keys(
    lines: Iterable[MetadataLine], keys: Mapping[str, Value], tensors: Mapping[str, TensorExpr]
) -> dict[str, TensorExpr]:
    """The checkpoint's tensors that a file holds as keys.

    Args:
        lines: The table of the architecture.
        keys: The file's keys, those of the architecture without its name.
        tensors: The tensors that were led back, whose names tell whether all of the model is inside another.
    """
    made = (
        line.led_back(keys[line.key], keys)
        for line in lines
        if isinstance(line, KeyTensor | KeyTable) and line.key in keys
    )
    is_inside = any(name.startswith(_INSIDE) for name in tensors)
    return {
        _INSIDE + name.removeprefix("model.") if is_inside else name: e for each in made for name, e in each.items()
    }
