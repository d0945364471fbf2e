"""What a model family is: a declaration, read by `plan.py`. docs/add-a-model.md shows how to write one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.shapes import DECODER_SHAPES, Size
from gguf_forge.gguf_file.values import Value
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tokenizer import Reader

# A line of a metadata table: from the config to keys and values. A key without "general." or "tokenizer." in
# front belongs to the architecture and gets its name.
MetadataLine: TypeAlias = Callable[[Config], Iterable[tuple[str, Value]]]

# An operation: from the tensors that a rule names to the target's expression.
Operation: TypeAlias = Callable[..., TensorExpr]


@dataclass(frozen=True)
class Rule:
    """One target tensor, and what it is made of.

    Attributes:
        sources: Checkpoint names with `{i}` for the layer and `{e}` for the expert. With `{e}` the operation
            gets the tensors of all experts, in order.
        target: GGUF name with `{i}`.
        operation: Called with the config and the sources' expressions.
        after: Targets with the same word here are written together, when the last source of all of them has
            been met: that is how the reference emits what it collects.
        first: Written before all others, as the reference does with what it generates.
    """

    sources: tuple[str, ...]
    target: str
    operation: Operation
    after: str = ""
    first: bool = False


@dataclass(frozen=True)
class Drop:
    """Checkpoint tensors that have no place in the file, and when (always, if not said)."""

    source: str
    when: Callable[[Config], bool] = lambda config: True


@dataclass(frozen=True)
class Architecture:
    """A family of models.

    Attributes:
        name: The GGUF architecture.
        hf: Class names as in `architectures` of config.json.
        metadata: Lines of the metadata table, in file order.
        tokenizer: Reads the vocabulary.
        rules: Tensors that are not one checkpoint tensor under the name that gguf-py's tables know.
        names: Further checkpoint templates -> GGUF templates for those that are; both with suffix or both without.
        operations: GGUF role, or a glob of roles, -> operation on tensors that are mapped by name.
        hf_names: Templates that the family's checkpoints have where most have others, without suffix: on the way back
            from a GGUF file they come before the usual ones.
        drops: Tensors to leave out.
        generated: Tensors made from the config alone, in file order.
        early: Metadata that the reference writes before the general keys.
        prepare: Changes to the config that need the folder.
        shapes: GGUF role -> the shape that the config tells of its weight.
        drop_extra_layers: Leave out layers beyond the config's count (multi-token prediction heads).
        prefix: What the checkpoints leave out in front of every name.
        quantized: Values of `quantization_config.quant_method` that the rules understand.
    """

    name: str
    hf: tuple[str, ...]
    metadata: tuple[MetadataLine, ...]
    tokenizer: Reader
    rules: tuple[Rule, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    operations: Mapping[str, Operation] = field(default_factory=dict)
    hf_names: tuple[str, ...] = ()
    drops: tuple[Drop, ...] = ()
    generated: Callable[[Config], Iterable[tuple[str, NDArray[np.float32]]]] = lambda config: ()
    early: tuple[MetadataLine, ...] = ()
    prepare: Callable[[Config, Path], Config] = lambda config, folder: config
    shapes: Mapping[str, tuple[Size, ...]] = field(default_factory=lambda: DECODER_SHAPES)
    drop_extra_layers: bool = False
    prefix: str = ""
    quantized: tuple[str, ...] = ()

    def derive(self, name: str, **changes: Any) -> Architecture:
        """A sibling: the same declaration with some parts exchanged."""
        return replace(self, name=name, **changes)
