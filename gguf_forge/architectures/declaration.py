"""What a model family is: a declaration, which `mapping.py` follows. docs/add-a-model.md shows how to write one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.renames import WRAPPERS, Rename
from gguf_forge.architectures.shapes import DECODER_SHAPES, Size
from gguf_forge.architectures.site import Part, Site
from gguf_forge.gguf_file.values import Value
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tokenizer import Reader
from gguf_forge.types.tensor_type import TensorType

# A line of a metadata table: from the site to keys and values. A key that begins with none of the words below is the
# architecture's and gets its name.
MetadataLine: TypeAlias = Callable[[Site], Iterable[tuple[str, Value]]]
WITHOUT_ARCHITECTURE = ("general.", "tokenizer.", "adapter.", "xielu.", "diffusion.", "vision.pos_emb_")

# The type that a tensor has in the converter's file, whose matrices are of the given float type.
ForcedType: TypeAlias = Callable[[TensorType], TensorType]


class Operation(Protocol):
    """From the tensors that a rule names to the target's expression."""

    def __call__(self, site: Site, /, *sources: TensorExpr) -> TensorExpr: ...


def always(site: Site) -> bool:
    return True


@dataclass(frozen=True)
class AnyOf:
    """A source that checkpoints store under one or more of these names: the first one met counts, the others are
    copies."""

    templates: tuple[str, ...]


@dataclass(frozen=True)
class Optional:
    """A source that may be missing: the operation then gets one tensor less."""

    template: str


Source: TypeAlias = str | AnyOf | Optional


def any_of(*templates: str) -> AnyOf:
    """One tensor under several names, as T5's embeddings."""
    return AnyOf(templates)


def optional(template: str) -> Optional:
    """A source that may be missing."""
    return Optional(template)


@dataclass(frozen=True)
class Rule:
    """One target tensor, and what it is made of.

    Attributes:
        sources: Checkpoint names with `{i}` for the layer and `{e}` for the expert, `any_of` or `optional` ones. With
            `{e}` the operation gets the tensors of all experts, in order.
        target: GGUF name with `{i}`.
        operation: Called with the site and the sources' expressions.
        after: Targets with the same word here are written together, when the last source of all of them has been met:
            that is how the reference emits what it collects.
        when: Where the rule holds; elsewhere its sources go by their names.
        first: A step of what is written before all others, as the reference does with what it generates: step 1, then
            2, and so on, and the layers in order within each. 0 for what is written in its place.
        last: Written after all others.
        count: How many parts `{e}` counts, where it does not count experts.
        forced_type: The type in the converter's file, before the family's `forced_types` and the usual rules.
    """

    sources: tuple[Source, ...]
    target: str
    operation: Operation
    after: str = ""
    when: Callable[[Site], bool] = always
    first: int = 0
    last: bool = False
    count: Callable[[Site], int] | None = None
    forced_type: ForcedType | None = None


@dataclass(frozen=True)
class Drop:
    """Checkpoint tensors that have no place in the file, and when. A template may end in `*`, for all that follows."""

    source: str
    when: Callable[[Site], bool] = always


def _config_block_count(site: Site) -> int:
    return site.config.block_count


def _config_expert_count(site: Site) -> int:
    return site.config.expert_count


def _as_it_is(site: Site) -> Config:
    return site.config


def _no_type(expr: TensorExpr) -> TensorType | None:
    return None


def _nothing(site: Site) -> Iterable[tuple[str, NDArray[np.float32]]]:
    return ()


@dataclass(frozen=True)
class Architecture:
    """A family of models, or one part of them.

    Attributes:
        name: The GGUF architecture.
        hf: Class names as in `architectures` of config.json.
        metadata: Lines of the metadata table, in file order.
        tokenizer: Reads the vocabulary; None for a part without one.
        vocabulary_of_target: Read the vocabulary in the folder of the model that this one is a draft for.
        part: Which part of a model this is.
        when: Which checkpoints of its classes it is for; None for all that no other declaration of theirs is for.
        renames: How checkpoint names are rewritten before anything looks at them, in order.
        takes: Whether a checkpoint tensor is of this part, by its name; None for the usual names of the part.
        rules: Tensors that are not one checkpoint tensor under a name that the tables know.
        modules: Files under the folder, beside the model's own, that hold tensors of it -> what is put before the names
            of these.
        names: Further checkpoint templates -> GGUF templates; both with suffix, or both without.
        operations: GGUF role, or a glob of roles, -> operation on tensors that are mapped by name. A role with suffix
            is for the tensor with this suffix alone.
        hf_names: Templates, without suffix, that the family's checkpoints have where most have others: on the way back
            from a GGUF file they come before the usual ones.
        stored_as: GGUF role -> what gives a tensor the shape that checkpoints store, on the way back, where an
            operation loses an axis of length 1.
        drops: Tensors to leave out.
        generated: Tensors made from the site alone, in file order.
        early: Metadata that the reference writes before the general keys.
        read_config: How config.json is read: over the defaults of its class, or as it is.
        prepare: The config as this family sees it.
        shapes: GGUF role -> the shape that the config tells of its weight.
        block_count: How many layers the file has.
        expert_count: How many experts the layer at hand has.
        model_tensors: Roles that every file has outside of layers.
        layer_tensors: Roles that the layer at hand has; `a|b` is one of both. None if the family does not declare it:
            a layer that lacks something then is a message, not an error.
        forced_types: GGUF role, or a glob of roles, -> the type in the converter's file, whatever its float type.
        kept_type: The type in the converter's file of a tensor that keeps what it was stored in, whatever its float
            type; None for those that do not. It comes before `forced_types`.
        choices: The options of the conversion that the declaration follows, of those in `Site.choices`.
        drop_extra_layers: Leave out layers beyond the count.
        adapters: What the checkpoint holds beside the model: how the name of each one's file begins, and its
            declaration. None if it holds none.
    """

    name: str
    hf: tuple[str, ...]
    metadata: tuple[MetadataLine, ...]
    tokenizer: Reader | None
    vocabulary_of_target: bool = False
    part: Part = "text"
    when: Callable[[Config], bool] | None = None
    renames: tuple[Rename, ...] = WRAPPERS
    takes: Callable[[str], bool] | None = None
    rules: tuple[Rule, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    operations: Mapping[str, Operation] = field(default_factory=dict)
    hf_names: tuple[str, ...] = ()
    stored_as: Mapping[str, Operation] = field(default_factory=dict)
    drops: tuple[Drop, ...] = ()
    generated: Callable[[Site], Iterable[tuple[str, NDArray[np.float32]]]] = _nothing
    early: tuple[MetadataLine, ...] = ()
    read_config: Callable[[Mapping[str, Any]], Config] = Config.of
    prepare: Callable[[Site], Config] = _as_it_is
    shapes: Mapping[str, tuple[Size, ...]] = field(default_factory=lambda: DECODER_SHAPES)
    block_count: Callable[[Site], int] = _config_block_count
    expert_count: Callable[[Site], int] = _config_expert_count
    model_tensors: tuple[str, ...] = ("token_embd", "output_norm")
    layer_tensors: Callable[[Site], tuple[str, ...]] | None = None
    forced_types: Mapping[str, ForcedType] = field(default_factory=dict)
    kept_type: Callable[[TensorExpr], TensorType | None] = _no_type
    choices: frozenset[str] = frozenset()
    drop_extra_layers: bool = False
    adapters: Callable[[Site], Mapping[str, Architecture]] | None = None

    def derive(self, name: str, **changes: Any) -> Architecture:
        """A sibling: the same declaration with some parts exchanged."""
        return replace(self, name=name, **changes)
