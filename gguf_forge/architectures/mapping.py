"""From a checkpoint and a declaration to a plan: every tensor as an expression, in the reference's order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Operation, Rule
from gguf_forge.architectures.operations import keep
from gguf_forge.architectures.shapes import disagreement
from gguf_forge.architectures.templates import fill, parse, role, target_of
from gguf_forge.architectures.tensor_names import known_names
from gguf_forge.checkpoint import Checkpoint, StoredTensor
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, printable
from gguf_forge.tensors.expression import RAW, AsFloat32, Constant, Stored, TensorExpr
from gguf_forge.types.tensor_type import BF16, F16, F32, TENSOR_TYPES, TensorType

# Computed by the model itself; the reference leaves them out for every family.
_ALWAYS_DROPPED = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")

_MAX_LISTED = 30
_STORED_TYPES = {"F32": F32, "F16": F16, "BF16": BF16, "U8": RAW}
_WIDENED_TYPES = {name: TENSOR_TYPES[name] for name in ("F64", "I8", "I16", "I32", "I64")}


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the file to be: its GGUF name, and how its rows come about."""

    name: str
    expr: TensorExpr


# Where the reference would write a tensor: generated ones first, then by the checkpoint tensor that completed
# it, then by the rule's place.
Place = tuple[int, int, int]


def plan_tensors(architecture: Architecture, config: Config, checkpoint: Checkpoint) -> tuple[PlannedTensor, ...]:
    """Every target tensor of the file, in the order of the reference's converter.

    Raises:
        UnsupportedError: checkpoint tensors that the declaration does not know (all of them, grouped).
        InputError: tensors or experts that are missing, doubled, or of the wrong shape.
    """
    placed: list[tuple[Place, PlannedTensor]] = [
        ((-1, number, 0), PlannedTensor(name, Constant(values)))
        for number, (name, values) in enumerate(architecture.generated(config))
    ]
    names = {**known_names(architecture.name), **architecture.names}
    by_source = _rules_by_source(architecture.rules)
    collected: dict[tuple[int, int | None], _Collected] = defaultdict(_Collected)
    unknown: list[str] = []

    for number, tensor in enumerate(checkpoint.tensors.values()):
        template, layer, expert = parse(architecture.prefix + tensor.name.replace("language_model.", ""))
        outside = layer is not None and layer >= config.block_count and "layers.{i}" in template
        if _is_dropped(architecture, config, tensor.name, template) or (outside and architecture.drop_extra_layers):
            continue
        target = target_of(template, names)
        if template in by_source and not outside:
            for rule_number in by_source[template]:
                collected[rule_number, layer].add(number, template, expert, tensor)
        elif target is not None and expert is None and not outside:
            operation = operation_for(architecture, target)
            name = fill(target, layer)
            placed.append(((1, number, 0), _planned(name, operation, config, [_stored(tensor)])))
        else:
            unknown.append(tensor.name)

    if unknown:
        raise UnsupportedError(
            f"{len(unknown)} tensors have no place in a {architecture.name} model:\n  "
            + "\n  ".join(group_names(unknown)),
            hint="the checkpoint may be of another model, be quantized, or hold an adapter",
        )
    placed.extend(_apply_rules(architecture.rules, collected, config))
    placed.sort(key=lambda item: item[0])
    planned = tuple(tensor for _, tensor in placed)
    _check_complete(planned, config)
    _check_shapes(planned, architecture, config)
    return planned


def native_type(checkpoint: Checkpoint) -> TensorType | None:
    """The 16-bit type of the first bf16 or f16 matrix, as the reference's `auto` finds it; None if there is none."""
    for tensor in checkpoint.tensors.values():
        if len(tensor.shape) >= 2 and tensor.dtype in ("BF16", "F16"):
            return _STORED_TYPES[tensor.dtype]
    return None


class _Collected:
    """What has been met of the sources of one rule in one layer."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, int | None], StoredTensor] = {}
        self.last = -1

    def add(self, number: int, template: str, expert: int | None, tensor: StoredTensor) -> None:
        self.parts[template, expert] = tensor
        self.last = max(self.last, number)


def _rules_by_source(rules: Iterable[Rule]) -> Mapping[str, list[int]]:
    by_source: dict[str, list[int]] = defaultdict(list)
    for number, rule in enumerate(rules):
        for source in rule.sources:
            by_source[source].append(number)
    return by_source


def _is_dropped(architecture: Architecture, config: Config, name: str, template: str) -> bool:
    return name.endswith(_ALWAYS_DROPPED) or any(
        drop.source == template and drop.when(config) for drop in architecture.drops
    )


def operation_for(architecture: Architecture, target: str) -> Operation:
    """What is done to the tensor that is mapped by name to this target."""
    what = role(target)
    return next((op for glob, op in architecture.operations.items() if fnmatchcase(what, glob)), keep)


def _apply_rules(
    rules: tuple[Rule, ...], collected: Mapping[tuple[int, int | None], _Collected], config: Config
) -> Iterable[tuple[Place, PlannedTensor]]:
    last: dict[tuple[str | int, int | None], int] = defaultdict(int)
    for (number, layer), met in collected.items():
        group = rules[number].after or number, layer
        last[group] = max(last[group], met.last)
    for (number, layer), met in collected.items():
        rule = rules[number]
        name = fill(rule.target, layer)
        sources = [_stored(tensor) for tensor in _parts_in_order(rule, layer, met, config, name)]
        place = 0 if rule.first else 1, last[rule.after or number, layer], number
        yield place, _planned(name, rule.operation, config, sources)


def _parts_in_order(rule: Rule, layer: int | None, met: _Collected, config: Config, target: str) -> list[StoredTensor]:
    wanted = [
        (source, expert)
        for source in rule.sources
        for expert in (range(config.expert_count) if "{e}" in source else (None,))
    ]
    missing = [fill(source, layer, expert) for source, expert in wanted if (source, expert) not in met.parts]
    if missing:
        raise InputError(
            f"{len(missing)} of its {len(wanted)} parts are missing:\n  " + "\n  ".join(group_names(missing)),
            tensor=target,
            hint="is a shard of the checkpoint missing?",
        )
    if len(met.parts) > len(wanted):
        raise InputError(f"the checkpoint holds {len(met.parts)} parts, the config says {len(wanted)}", tensor=target)
    return [met.parts[key] for key in wanted]


def _stored(tensor: StoredTensor) -> TensorExpr:
    kind = (_STORED_TYPES | _WIDENED_TYPES).get(tensor.dtype)
    if kind is None:
        raise UnsupportedError(
            f"data type {tensor.dtype} is not supported yet",
            tensor=tensor.name,
            hint=f"supported: {', '.join(_STORED_TYPES | _WIDENED_TYPES)}",
        )
    if not tensor.shape or 0 in tensor.shape:
        raise InputError(f"a tensor of shape {list(tensor.shape)} holds nothing to convert", tensor=tensor.name)
    stored = Stored(tensor.name, tensor.source, tensor.offset, tensor.shape, kind)
    return AsFloat32(stored) if tensor.dtype in _WIDENED_TYPES else stored


def _planned(name: str, operation: object, config: Config, sources: list[TensorExpr]) -> PlannedTensor:
    try:
        expr = operation(config, *sources)  # type: ignore[operator]
    except ForgeError as error:
        if error.tensor or error.file:
            raise
        raise type(error)(error.problem, tensor=name, hint=error.hint) from None
    if expr.dtype == RAW:
        raise UnsupportedError("is stored as plain bytes", tensor=name, hint="this quantization is not supported yet")
    return PlannedTensor(name, expr)


def _check_complete(planned: tuple[PlannedTensor, ...], config: Config) -> None:
    seen: set[str] = set()
    for tensor in planned:
        if tensor.name in seen:
            raise InputError("two tensors of the checkpoint claim this place", tensor=tensor.name)
        seen.add(tensor.name)
    missing = [name for name in ("token_embd.weight", "output_norm.weight") if name not in seen]
    missing += _missing_in_layers(seen, config.block_count)
    if missing:
        raise InputError(
            f"{len(missing)} tensors that the model must have are made of nothing in the checkpoint:\n  "
            + "\n  ".join(group_names(missing)),
            hint=f"is a shard missing? The config says {config.block_count} layers",
        )


def _missing_in_layers(names: Iterable[str], n_layers: int) -> list[str]:
    """What a layer lacks that another one has on top of all that it has itself.

    Layers of different kinds, such as dense ones and ones of experts, each have something that the other has not.
    """
    layers: dict[int | None, set[str]] = defaultdict(set)
    for name in names:
        template, layer, _ = parse(name)
        layers[layer].add(template)
    kinds = sorted({frozenset(layers[layer]) for layer in range(n_layers)}, key=len, reverse=True)
    return [
        fill(template, layer)
        for layer in range(n_layers)
        for kind in [next((kind for kind in kinds if layers[layer] < kind), frozenset[str]())]
        for template in sorted(kind - layers[layer])
    ]


def _check_shapes(planned: tuple[PlannedTensor, ...], architecture: Architecture, config: Config) -> None:
    problems = []
    for tensor in planned:
        sizes = architecture.shapes.get(role(parse(tensor.name).template))
        if sizes is not None and tensor.name.endswith(".weight"):
            problem = disagreement(tensor.expr.shape, sizes, config)
            if problem:
                problems.append(f"{tensor.name} {problem}")
    if problems:
        raise InputError(
            f"{len(problems)} tensors have other shapes than the config says:\n  "
            + "\n  ".join(problems[:_MAX_LISTED]),
            hint="are config.json and the weights of the same model?",
        )


def group_names(names: Iterable[str]) -> list[str]:
    """Names that differ in numbers only, as one line each, fit to print; a long list is cut.

    Example:
        >>> group_names(["a.0.w", "a.1.w", "a.2.w", "b"])
        ['a.{0..2}.w (3)', 'b']
    """
    groups: dict[str, list[tuple[int | None, int | None]]] = defaultdict(list)
    for name in names:
        template, layer, expert = parse(name)
        groups[template].append((layer, expert))
    lines = [printable(_group_line(template, numbers)) for template, numbers in groups.items()]
    return lines if len(lines) <= _MAX_LISTED else [*lines[:_MAX_LISTED], f"and {len(lines) - _MAX_LISTED} more"]


def _group_line(template: str, numbers: list[tuple[int | None, int | None]]) -> str:
    line = template
    for hole, values in (("{i}", [n[0] for n in numbers]), ("{e}", [n[1] for n in numbers])):
        known = sorted({n for n in values if n is not None})
        if known:
            span = str(known[0]) if len(known) == 1 else f"{{{known[0]}..{known[-1]}}}"
            line = line.replace(hole, span)
    return line if len(numbers) == 1 else f"{line} ({len(numbers)})"
