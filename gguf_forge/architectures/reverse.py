"""The way back: from the tensors of a GGUF file to those of a Hugging Face checkpoint.

A declaration describes only the way from a checkpoint to a GGUF file. So we apply it to stand-ins for the checkpoint's
tensors, which gives an expression for each tensor of the file. Then we undo the operations of this expression, the last
one first, on the tensor that the file has. If several tensors of the file were cut from one, we join them again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Operation, Rule
from gguf_forge.architectures.mapping import operation_for, templates_of
from gguf_forge.architectures.metadata import Line
from gguf_forge.architectures.operations import keep, stack
from gguf_forge.architectures.registry import declarations
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.templates import SUFFIXES, fill, group_names, parse, role, target_of
from gguf_forge.architectures.tensor_names import known_names
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, printable
from gguf_forge.gguf_file.values import Metadata, ValueType
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.expression import Stripe, TensorExpr, Unary
from gguf_forge.tensors.joined import Joined, Stack
from gguf_forge.tensors.row_maps import Slice
from gguf_forge.tensors.stored import Constant, StandIn, Zeros

# The names that most checkpoints use. gguf-py's tables know many names for each tensor.
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
            "mlp.gate.e_score_correction",
        )
    ),
)
# Far above any real model; a hostile file may claim any number.
_MOST_EXPERTS = 100_000
# Tensors that the converter made from config.json. The checkpoint does not need them as tensors.
_GENERATED = frozenset(("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"))

# Config keys that operations ask for -> the GGUF key (without the architecture's name) that has the value. They are for
# keys whose metadata line computes its value with a function, so that the line does not tell the config key.
_CONFIG_KEYS = {
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "hidden_size": "embedding_length",
    "head_dim": "attention.key_length",
    "num_experts": "expert_count",
    "v_head_dim": "attention.value_length_mla",
}


def checkpoint_tensors(metadata: Metadata, tensors: Mapping[str, TensorExpr]) -> dict[str, TensorExpr]:
    """The tensors of the checkpoint that a GGUF file was made of, by their Hugging Face names.

    Args:
        metadata: Keys of the file.
        tensors: Its tensors in file order, each as float values.

    Raises:
        UnsupportedError: the architecture, or some of the tensors, cannot be led back; the message names all of them.
        InputError: a tensor's shape does not agree with the keys.

    Example:
        >>> with open_gguf("model-BF16.gguf") as gguf:  # doctest: +SKIP
        ...     found = checkpoint_tensors(gguf.typed_metadata, {t.name: t.expression() for t in gguf.tensors})
    """
    architecture = _declaration(metadata)
    names = {**known_names(architecture.name), **architecture.names}
    config = _config(architecture, metadata)
    site = Site(config, LocalFolder(Path()), architecture.part, block_count=config.find("block_count") or 0)
    undone = _WayBack()
    grouped: dict[tuple[tuple[str, ...], int | None], dict[str, TensorExpr]] = defaultdict(dict)
    # If there are several rules for one target, the first one in the declaration counts.
    rules = {rule.target: rule for rule in reversed(architecture.rules) if len(rule.sources) == 1}
    unknown: list[str] = []
    for name, expr in tensors.items():
        template, layer, _ = parse(name)
        source = _source_of(template, architecture, names)
        if name in _GENERATED:
            continue
        if template in rules and _holds(rules[template], site.at(layer)):
            grouped[_source_template(rules[template]), layer][template] = expr
        elif source is not None:
            step = operation_for(architecture, template)
            stand_in = StandIn(fill(source, layer), _stored_shape(architecture, template, expr.shape))
            undone.add(_followed(step, site.at(layer), [stand_in], name), expr)
        else:
            unknown.append(name)
    for (sources, layer), targets in grouped.items():
        here = site.at(layer)
        alone = (rule for rule in architecture.rules if len(rule.sources) == 1 and _holds(rule, here))
        mine = [rule for rule in alone if _source_template(rule) == sources]
        trees = _of_rules(mine, targets, here, architecture)
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
    return {_called_in_checkpoints(architecture, name, site): expr for name, expr in undone.found().items()}


def _stored_shape(architecture: Architecture, template: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the checkpoint, where an operation removes an axis of a weight. A bias always has one axis."""
    stored_as = architecture.stored_as.get(role(template), keep) if len(shape) > 1 else keep
    return stored_as(Site(Config({}), LocalFolder(Path())), StandIn("", shape)).shape


def _holds(rule: Rule, site: Site) -> bool:
    """Does a rule hold here? One that asks what the file does not say leads nowhere."""
    try:
        return rule.when(site)
    except ForgeError:
        return False


def _source_template(rule: Rule) -> tuple[str, ...]:
    return (templates_of(rule.sources[0])[0],)


def _called_in_checkpoints(architecture: Architecture, name: str, site: Site) -> str:
    for rename in reversed(architecture.renames):
        name = rename.undone(name, site)
    return name


def _declaration(metadata: Metadata) -> Architecture:
    """The declaration for most checkpoints of the file's architecture: one for a whole model, not for its body."""
    value = metadata.get("general.architecture")
    wanted = value.data if value is not None else None
    whole = [found for found in declarations() if not all(name.endswith("Model") for name in found.hf)]
    declared = next((found for found in (*whole, *declarations()) if found.name == wanted), None)
    if declared is None:
        raise UnsupportedError(
            f"the way back to a checkpoint is not known for architecture {printable(str(wanted))}",
            hint=f"it is for {', '.join(dict.fromkeys(architecture.name for architecture in declarations()))}",
        )
    return declared


def _config(architecture: Architecture, metadata: Metadata) -> Config:
    """The config that operations need, made from the file's metadata with the declaration's metadata lines."""

    def data(key: str) -> object:
        value = metadata.get(f"{architecture.name}.{key}")
        if value is None or value.type is not ValueType.ARRAY:
            return value.data if value is not None else None
        return list(value.data)

    def number(key: str) -> int | None:
        found = data(key)
        return found if isinstance(found, int) else None

    entries: dict[str, object] = {name: data(key) for name, key in _CONFIG_KEYS.items()}
    for line in architecture.metadata:
        if isinstance(line, Line):
            entries |= {key: data(line.key) for key in line.keys}
    whole, rotated = number("attention.key_length_mla"), number("rope.dimension_count")
    if whole is not None and rotated is not None:
        # Latent attention: the file counts one head for all keys, the checkpoint as many heads as for queries.
        entries |= {"qk_nope_head_dim": whole - rotated, "num_key_value_heads": entries["num_attention_heads"]}
    values, value_heads = number("ssm.inner_size"), number("ssm.time_step_rank")
    if values is not None and value_heads:
        entries["linear_value_head_dim"] = values // value_heads
    layers = number("block_count")
    if layers is not None:
        # The file's block_count includes the layers that predict further tokens, the checkpoint's does not.
        entries |= {"block_count": layers, "num_hidden_layers": layers - (number("nextn_predict_layers") or 0)}
    given = {name: value for name, value in entries.items() if value is not None}
    rope: dict[str, object] = {"mrope_section": data("rope.dimension_sections")}
    head = number("attention.key_length")
    if head and rotated:
        rope["partial_rotary_factor"] = rotated / head
    rope = {name: value for name, value in rope.items() if value is not None}
    # The file lacks the rows that the converter cut off, so the largest possible size makes the operation cut nothing.
    return Config({"real_vocab_size": 2**31 - 1, **given, "rope_parameters": rope})


def _source_of(template: str, architecture: Architecture, names: Mapping[str, str]) -> str | None:
    """The checkpoint template for a target's template; None if there is none."""
    suffix = next((suffix for suffix in SUFFIXES if template.endswith(suffix)), "")
    stems = (*architecture.names, *architecture.hf_names, *_USUAL_NAMES)
    candidates = (stem + end for stem in stems for end in (suffix, ""))
    return next((source for source in candidates if target_of(source, names) == template), None)


def _followed(step: Operation, site: Site, stand_ins: Sequence[StandIn], name: str) -> TensorExpr:
    """The expression that an operation makes of stand-ins."""
    try:
        return step(site, *stand_ins)
    except ForgeError as error:
        raise UnsupportedError(f"cannot be led back to a checkpoint: {error.problem}", tensor=printable(name)) from None


def _of_rules(
    rules: Sequence[Rule], targets: Mapping[str, TensorExpr], site: Site, architecture: Architecture
) -> Mapping[str, TensorExpr] | None:
    """Target -> the expression that its rule makes of the one source that all these rules share.

    None if targets are missing or their shapes do not fit.
    """
    if {rule.target for rule in rules} != set(targets):
        return None
    source = templates_of(rules[0].sources[0])[0]
    if "{e}" in source:
        (rule,) = rules
        n_experts, *shape = targets[rule.target].shape
        if (rule.count is not None and rule.operation is not stack) or not shape or n_experts > _MOST_EXPERTS:
            return None
        parts = [StandIn(fill(source, site.layer, expert), tuple(shape)) for expert in range(n_experts)]
        return {rule.target: _followed(rule.operation, site, parts, fill(rule.target, site.layer))}
    name = fill(source, site.layer)
    for candidate in _shapes([expr.shape for expr in targets.values()]):
        with suppress(ForgeError):
            trees = {rule.target: rule.operation(site, StandIn(name, candidate)) for rule in rules}
            if all(tree.shape == targets[target].shape for target, tree in trees.items()):
                return trees
    return None


def _shapes(targets: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Possible shapes of a source tensor, if each of its values is in exactly one of the targets."""
    if not all(map(prod, targets)):
        return
    if len(targets) == 1:
        yield targets[0]
    total = sum(map(prod, targets))
    sizes = dict.fromkeys(size * times for shape in targets for size in shape for times in (1, len(targets)))
    for lead in ((), *((shape[0],) for shape in targets)):
        for size in sizes:
            rest, left_over = divmod(total, prod(lead) * size)
            if not left_over:
                yield (*lead, rest, size)


class _WayBack:
    """Collects the checkpoint's tensors while the file's tensors are undone one by one."""

    def __init__(self) -> None:
        self._found: dict[str, TensorExpr | None] = {}
        self._pieces: dict[tuple[TensorExpr, int], list[Stripe]] = defaultdict(list)

    def add(self, tree: TensorExpr, value: TensorExpr) -> None:
        """Undoes the operations of `tree`, the last one first.

        `tree` is an expression over a `StandIn`, and `value` is the file's tensor with the result of this expression.
        """
        if isinstance(tree, Constant | Zeros):
            return  # This part does not come from the checkpoint.
        while not isinstance(tree, StandIn):
            if isinstance(tree, Stack):
                for number, part in enumerate(tree.parts):
                    self.add(part, tree.member(value, number))
                return
            if isinstance(tree, Joined):
                for piece in tree.pieces:
                    self.add(piece.expr, Slice(value, tree.axis, piece.start, piece.stop, piece.step))
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
                value = tree.inverse(value)
            tree = tree.of
        if value.shape != tree.shape:
            raise InputError(f"shape {value.shape} is not the {tree.shape} of the checkpoint", tensor=tree.name)
        self._found[tree.name] = value

    def _put_together(self, cut: Slice) -> TensorExpr | None:
        """The tensor that the pieces were cut from; None as long as pieces are missing."""
        pieces, size = self._pieces[cut.of, cut.axis], cut.of.shape[cut.axis]
        is_there = np.zeros(size, bool)
        for piece in pieces:
            is_there[piece.start : piece.stop : piece.step] = True
        if not is_there.all():
            return None
        return pieces[0].expr if len(pieces) == 1 else Joined(tuple(pieces), cut.axis, size)

    def unfinished(self) -> list[str]:
        """The names of the tensors that still lack pieces."""
        return [name for name, expr in self._found.items() if expr is None]

    def found(self) -> dict[str, TensorExpr]:
        return {name: expr for name, expr in self._found.items() if expr is not None}


def _origin(tree: TensorExpr) -> str:
    """The name of the stand-in at the start of a chain of operations."""
    below = tree
    while isinstance(below, Unary):
        below = below.of
    return below.name if isinstance(below, StandIn) else ""
