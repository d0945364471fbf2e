"""The declaration of a model family, which `mapping.py` applies. docs/add-a-model.md shows how to write one."""

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

# A line of a metadata table: a function from the site to keys and values. A key that begins with none of the words
# below belongs to the architecture and gets the architecture's name in front.
MetadataLine: TypeAlias = Callable[[Site], Iterable[tuple[str, Value]]]
WITHOUT_ARCHITECTURE = ("general.", "tokenizer.", "adapter.", "xielu.", "diffusion.", "vision.pos_emb_")

# A function from the float type of the converter's file to the type that one tensor has in this file.
ForcedType: TypeAlias = Callable[[TensorType], TensorType]


class Operation(Protocol):
    """A function that makes the target's expression from the source tensors of a rule."""

    def __call__(self, site: Site, /, *sources: TensorExpr) -> TensorExpr: ...


def always(site: Site) -> bool:
    return True


@dataclass(frozen=True)
class AnyOf:
    """A source that checkpoints store under one or more of these names.

    The first name that is found counts. The others are copies of the same tensor.
    """

    templates: tuple[str, ...]


@dataclass(frozen=True)
class Optional:
    """A source that may be missing. The operation then gets one tensor less."""

    template: str


Source: TypeAlias = str | AnyOf | Optional


def any_of(*templates: str) -> AnyOf:
    """One tensor that has several names, such as T5's embeddings."""
    return AnyOf(templates)


def optional(template: str) -> Optional:
    """A source that may be missing."""
    return Optional(template)


@dataclass(frozen=True)
class Rule:
    """One target tensor, and the source tensors that it is made of.

    Attributes:
        sources: Checkpoint names with `{i}` for the layer and `{e}` for the expert; also `any_of` and `optional`. With
            `{e}` the operation gets the tensors of all experts, in order.
        target: GGUF name with `{i}`.
        operation: Called with the site and the sources' expressions.
        after: Targets with the same word here are written together, after the last source of all of them. The
            reference's converter does this with tensors that it collects.
        when: Whether the rule applies at a site. Where it does not, its sources are mapped by their names.
        first: 1 or more for a target that is written before all others, as the reference's converter does with
            tensors that it generates. Targets with 1 come first, then those with 2, and so on; within each step the
            layers are in order. 0 for a target that is written in its usual place.
        last: Whether the target is written after all others.
        count: The number of parts that `{e}` counts, if it does not count experts.
        forced_type: The type in the converter's file. It counts before the family's `forced_types` and the usual
            rules.
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
    """Checkpoint tensors that the file leaves out, and the condition for it.

    A template may end in `*`, which matches all further parts of a name.
    """

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
        when: Whether the declaration is for a checkpoint of its classes. None if it is for all checkpoints that no
            other declaration of these classes is for.
        renames: Rewrite checkpoint names, in order, before the names are looked up.
        takes: Whether a checkpoint tensor belongs to this part, by its name; None for the usual names of the part.
        rules: Target tensors that are not simply one checkpoint tensor whose name the tables know.
        modules: Further files in the folder that hold tensors of the model -> the prefix that their tensor names get.
        names: Further checkpoint templates -> GGUF templates; both with suffix, or both without.
        operations: GGUF role, or a glob of roles, -> operation on tensors that are mapped by name. A role with suffix
            stands only for the tensor with this suffix.
        drops: Tensors to leave out.
        generated: Tensors made from the site alone, in file order.
        early: Metadata that the reference writes before the general keys.
        read_config: How config.json is read: with the defaults of its config class, or without.
        prepare: Changes the config for this family.
        shapes: GGUF role -> the shape that its weight must have according to the config.
        block_count: The number of layers of the file.
        expert_count: The number of experts of the site's layer.
        model_tensors: Roles that every file has outside of layers.
        layer_tensors: Roles that the site's layer must have; for `a|b`, one of the two. None if the family does not
            declare them: a layer that lacks a tensor then causes a warning, not an error.
        forced_types: GGUF role, or a glob of roles, -> the type in the converter's file, whatever its float type.
        kept_type: The type of a tensor that keeps its stored type in the converter's file, whatever the file's float
            type; None for all other tensors. It counts before `forced_types`.
        choices: The options of `Site.choices` that the declaration supports.
        drop_extra_layers: Whether to leave out layers beyond the count.
        adapters: Adapters that the checkpoint holds in addition to the model: the beginning of each adapter's file
            name, and its declaration. None if it holds none.
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
    drops: tuple[Drop, ...] = ()
    generated: Callable[[Site], Iterable[tuple[str, NDArray[np.float32]]]] = _nothing
    early: tuple[MetadataLine, ...] = ()
    read_config: Callable[[Mapping[str, object]], Config] = Config.of
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
        """A copy of the declaration with some of its attributes replaced."""
        return replace(self, name=name, **changes)
