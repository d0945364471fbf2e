"""The way back: from the tensors of a GGUF file to those of a Hugging Face checkpoint.

A declaration only says how to go forward. So it is followed with tensors that are not there, and what comes out, an
expression, is undone operation by operation with the tensor that is. What several targets were cut from is put
together again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from math import prod

import numpy as np

from gguf_forge.architectures import FAMILIES
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Operation, Rule
from gguf_forge.architectures.mapping import group_names, operation_for
from gguf_forge.architectures.templates import SUFFIXES, fill, parse, target_of
from gguf_forge.architectures.tensor_names import known_names
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, printable
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import (
    Add,
    PermuteRope,
    Reshape,
    RowRange,
    Slice,
    Stack,
    TensorExpr,
    Transpose,
    Unary,
)
from gguf_forge.types.rows import RowNumbers, Rows
from gguf_forge.types.tensor_type import F32, TensorType

# What checkpoints call most tensors, of the many names that gguf-py's tables know for each.
_USUAL_NAMES = (
    "model.embed_tokens",
    "model.norm",
    "lm_head",
    *(
        f"model.layers.{{i}}.{name}"
        for name in (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
            *(f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
            *(f"self_attn.{part}" for part in ("q_a_proj", "q_a_layernorm", "q_b_proj")),
            *(f"self_attn.{part}" for part in ("kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj")),
            *(f"mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj", "gate")),
            *(f"mlp.shared_expert.{part}" for part in ("gate_proj", "up_proj", "down_proj")),
            "mlp.shared_expert_gate",
        )
    ),
)
# Far above any real model; a hostile file may claim any number.
_MOST_EXPERTS = 100_000
# Made by the converter from config.json, where the way back finds them.
_GENERATED = frozenset(("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"))

# What operations ask a config, and the key of the GGUF file (without its architecture) that has it.
_CONFIG_KEYS = {
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "head_dim": "attention.key_length",
    "num_experts": "expert_count",
    "v_head_dim": "attention.value_length_mla",
}


@dataclass(frozen=True)
class Unpermuted(Unary):
    """Axis 0 from llama.cpp's rotary order (interleaved pairs) to Hugging Face's (two halves of a head)."""

    n_head: int

    def _order(self, index: RowNumbers) -> RowNumbers:
        half = self.of.shape[0] // self.n_head // 2
        head, within = np.divmod(index, 2 * half)
        order: RowNumbers = head * 2 * half + within % half * 2 + within // half
        return order

    def source_rows(self, rows: RowNumbers) -> RowNumbers:
        return rows if len(self.shape) == 1 else self._order(rows)

    def take(self, rows: RowNumbers) -> Rows:
        if len(self.shape) == 1:
            return self.of.take(rows)[:, self._order(np.arange(self.shape[0]))]
        return super().take(rows)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return super().working_set(n_rows, scattered=True)


@dataclass(frozen=True)
class Stripe:
    """Where a part of a tensor lies along the axis it was cut: every `step`-th index from `start` to `stop`."""

    start: int
    stop: int
    step: int
    expr: TensorExpr


@dataclass(frozen=True)
class PutTogether(TensorExpr):
    """What the pieces were cut from, along one of the last two axes (-1 or -2); together they are all of it."""

    pieces: tuple[Stripe, ...]
    axis: int
    size: int
    dtype: TensorType = F32

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        shape = list(self.pieces[0].expr.shape)
        shape[self.axis] = self.size
        return tuple(shape)

    @property
    def is_columnwise(self) -> bool:
        return any(piece.expr.is_columnwise for piece in self.pieces)

    def take(self, rows: RowNumbers) -> Rows:
        taken = np.empty((len(rows), self.shape[-1]), np.float32)
        if self.axis == -1:
            for piece in self.pieces:
                taken[:, piece.start : piece.stop : piece.step] = piece.expr.take(rows)
            return taken
        matrix, within = np.divmod(rows, self.size)
        for piece in self.pieces:
            number, rest = np.divmod(within - piece.start, piece.step)
            mine = np.flatnonzero((within >= piece.start) & (within < piece.stop) & (rest == 0))
            if len(mine):
                taken[mine] = piece.expr.take(matrix[mine] * piece.expr.shape[-2] + number[mine])
        return taken

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        most = max(piece.expr.working_set(n_rows, scattered=scattered) for piece in self.pieces)
        return 2 * n_rows * self.row_bytes + most

    def sources(self) -> Iterator[Source]:
        for piece in self.pieces:
            yield from piece.expr.sources()


def checkpoint_tensors(metadata: Metadata, tensors: Mapping[str, TensorExpr]) -> dict[str, TensorExpr]:
    """The tensors of the checkpoint that a GGUF file was made of, by their Hugging Face names.

    Args:
        metadata: Keys of the file.
        tensors: Its tensors in file order, each as float values.

    Raises:
        UnsupportedError: the architecture, or tensors that its declaration does not lead back; all are named.
        InputError: a tensor has another shape than the keys say.

    Example:
        >>> with open_gguf("model-BF16.gguf") as gguf:  # doctest: +SKIP
        ...     found = checkpoint_tensors(gguf.typed_metadata, {t.name: expression_of(t) for t in gguf.tensors})
    """
    architecture = _declaration(metadata)
    names = {**known_names(architecture.name), **architecture.names}
    config = _config(architecture.name, metadata)
    undone = _Undone()
    grouped: dict[tuple[tuple[str, ...], int | None], dict[str, TensorExpr]] = defaultdict(dict)
    # of several ways to store a tensor, the one that is declared first
    rules = {rule.target: rule for rule in reversed(architecture.rules) if len(rule.sources) == 1}
    unknown: list[str] = []
    for name, expr in tensors.items():
        template, layer, _ = parse(name)
        source = _source_of(template, architecture, names)
        if name in _GENERATED:
            continue
        if template in rules:
            grouped[rules[template].sources, layer][template] = expr
        elif source is not None:
            step = operation_for(architecture, template)
            stand_in = StandIn(fill(source, layer), expr.shape)
            undone.add(_followed(step, config, [stand_in], name), expr)
        else:
            unknown.append(name)
    for (sources, layer), targets in grouped.items():
        mine = [rule for rule in architecture.rules if rule.sources == sources]
        trees = _of_rules(mine, layer, targets, config)
        if trees is None:
            unknown += [fill(target, layer) for target in targets]
        for target, tree in (trees or {}).items():
            undone.add(tree, targets[target])
    unknown += undone.unfinished()
    if unknown:
        raise UnsupportedError(
            f"{len(unknown)} tensors of this {architecture.name} model cannot be led back to a checkpoint:\n  "
            + "\n  ".join(group_names(unknown)),
            hint="dequantize to a GGUF file instead",
        )
    return undone.found()


def _declaration(metadata: Metadata) -> Architecture:
    """The declaration that most checkpoints of the file's architecture follow."""
    value = metadata.get("general.architecture")
    wanted = value.data if value is not None else None
    causal = [place for name, place in FAMILIES.items() if name.endswith("ForCausalLM")]
    found: list[Architecture] = [
        getattr(import_module(f"gguf_forge.architectures.families.{module}"), attribute) for module, attribute in causal
    ]
    declared = next((architecture for architecture in found if architecture.name == wanted), None)
    if declared is None:
        raise UnsupportedError(
            f"the way back to a checkpoint is not known for architecture {printable(str(wanted))}",
            hint=f"it is for {', '.join(dict.fromkeys(architecture.name for architecture in found))}",
        )
    return declared


def _config(architecture: str, metadata: Metadata) -> Config:
    """What operations need to know."""

    def number(key: str) -> int | None:
        value = metadata.get(f"{architecture}.{key}")
        return value.data if value is not None and isinstance(value.data, int) else None

    entries = {name: number(key) for name, key in _CONFIG_KEYS.items()}
    whole, rotated = number("attention.key_length_mla"), number("rope.dimension_count")
    if whole is not None and rotated is not None:
        # latent attention: the file counts one head for all keys, the checkpoint as many as for queries
        entries |= {"qk_nope_head_dim": whole - rotated, "num_key_value_heads": entries["num_attention_heads"]}
    given = {name: value for name, value in entries.items() if value is not None}
    # rows that the converter cut off are not there any more
    return Config({"real_vocab_size": 2**31 - 1, **given, "rope_parameters": {}})


def _source_of(template: str, architecture: Architecture, names: Mapping[str, str]) -> str | None:
    """The checkpoint's template for a target's."""
    suffix = next((suffix for suffix in SUFFIXES if template.endswith(suffix)), "")
    stems = (*architecture.names, *architecture.hf_names, *_USUAL_NAMES)
    candidates = (stem + end for stem in stems for end in (suffix, ""))
    return next((source for source in candidates if target_of(source, names) == template), None)


@dataclass(frozen=True)
class StandIn(TensorExpr):
    """A tensor of a checkpoint that is not there: a name and a shape."""

    name: str
    shape: tuple[int, ...]
    dtype: TensorType = F32

    def take(self, rows: RowNumbers) -> Rows:
        raise InputError("has no values", tensor=self.name)

    def working_set(self, n_rows: int, *, scattered: bool = False) -> int:
        return n_rows * self.row_bytes

    def sources(self) -> Iterator[Source]:
        return iter(())


def _followed(step: Operation, config: Config, stand_ins: Sequence[StandIn], name: str) -> TensorExpr:
    """What a declaration makes of tensors that are not there."""
    try:
        return step(config, *stand_ins)
    except ForgeError as error:
        raise UnsupportedError(f"cannot be led back to a checkpoint: {error.problem}", tensor=printable(name)) from None


def _of_rules(
    rules: Sequence[Rule], layer: int | None, targets: Mapping[str, TensorExpr], config: Config
) -> Mapping[str, TensorExpr] | None:
    """Target -> what the rules, all of one source, make it of; None if not all targets are there, or do not fit."""
    if {rule.target for rule in rules} != set(targets):
        return None
    source = rules[0].sources[0]
    if "{e}" in source:
        (rule,) = rules
        n_experts, *shape = targets[rule.target].shape
        parts = [StandIn(fill(source, layer, expert), tuple(shape)) for expert in range(n_experts)]
        if not shape or n_experts > _MOST_EXPERTS:
            return None
        return {rule.target: _followed(rule.operation, config, parts, fill(rule.target, layer))}
    name = fill(source, layer)
    for candidate in _shapes([expr.shape for expr in targets.values()]):
        with suppress(ForgeError):
            trees = {rule.target: rule.operation(config, StandIn(name, candidate)) for rule in rules}
            if all(tree.shape == targets[target].shape for target, tree in trees.items()):
                return trees
    return None


def _shapes(targets: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Shapes that a tensor may have which all of the targets are made of, each value of it once."""
    if not all(map(prod, targets)):
        return
    total = sum(map(prod, targets))
    sizes = dict.fromkeys(size * times for shape in targets for size in shape for times in (1, len(targets)))
    for lead in ((), *((shape[0],) for shape in targets)):
        for size in sizes:
            rest, left_over = divmod(total, prod(lead) * size)
            if not left_over:
                yield (*lead, rest, size)


class _Undone:
    """The checkpoint's tensors as far as they are known."""

    def __init__(self) -> None:
        self._found: dict[str, TensorExpr | None] = {}
        self._pieces: dict[tuple[TensorExpr, int], list[Stripe]] = defaultdict(list)

    def add(self, tree: TensorExpr, value: TensorExpr) -> None:
        """`value` is what `tree`, an expression over a `StandIn`, came to: undoes it, the last operation first."""
        while not isinstance(tree, StandIn):
            if isinstance(tree, Stack):
                for number, part in enumerate(tree.parts):
                    self.add(part, _member(value, number, part.shape))
                return
            if not isinstance(tree, Unary):
                raise UnsupportedError(f"{type(tree).__name__} cannot be undone")
            if isinstance(tree, Slice):
                self._pieces[tree.of, tree.axis].append(Stripe(tree.start, tree.stop, tree.step, value))
                whole = self._put_together(tree)
                if whole is None:
                    self._found.setdefault(_origin(tree), None)
                    return
                value = whole
            else:
                value = _undo(tree, value)
            tree = tree.of
        if value.shape != tree.shape:
            raise InputError(f"shape {value.shape} is not the {tree.shape} of the checkpoint", tensor=tree.name)
        self._found[tree.name] = value

    def _put_together(self, cut: Slice) -> TensorExpr | None:
        """What was cut, as soon as all pieces are there."""
        pieces, size = self._pieces[cut.of, cut.axis], cut.of.shape[cut.axis]
        is_there = np.zeros(size, bool)
        for piece in pieces:
            is_there[piece.start : piece.stop : piece.step] = True
        if not is_there.all():
            return None
        return pieces[0].expr if len(pieces) == 1 else PutTogether(tuple(pieces), cut.axis, size)

    def unfinished(self) -> list[str]:
        """Tensors of which pieces are missing."""
        return [name for name, expr in self._found.items() if expr is None]

    def found(self) -> dict[str, TensorExpr]:
        return {name: expr for name, expr in self._found.items() if expr is not None}


def _undo(step: Unary, value: TensorExpr) -> TensorExpr:
    if isinstance(step, PermuteRope):
        return Unpermuted(value, step.n_head)
    if isinstance(step, Add):
        return Add(value, -step.number)
    if isinstance(step, Transpose):
        return Transpose(value)
    if isinstance(step, Reshape):
        return Reshape(value, step.of.shape[:-1])
    raise UnsupportedError(f"{type(step).__name__} cannot be undone")


def _origin(tree: TensorExpr) -> str:
    """The name of the tensor that a chain of operations begins with."""
    below = tree
    while isinstance(below, Unary):
        below = below.of
    return below.name if isinstance(below, StandIn) else ""


def _member(stack: TensorExpr, number: int, shape: tuple[int, ...]) -> TensorExpr:
    n_rows = prod(shape[:-1])
    return Reshape(RowRange(stack, number * n_rows, (number + 1) * n_rows), shape[:-1])
