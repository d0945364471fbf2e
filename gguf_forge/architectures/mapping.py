"""Plans the tensors of a file from a site and a declaration: each as an expression, in the reference's order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from gguf_forge.architectures.block_scales import block_scales
from gguf_forge.architectures.completeness import check_complete, check_shapes
from gguf_forge.architectures.declaration import AnyOf, Architecture, ForcedType, Operation, Optional, Rule, Source
from gguf_forge.architectures.operations import keep, vector
from gguf_forge.architectures.parts import belongs_to
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.stacked_experts import with_stacked_experts
from gguf_forge.architectures.strange_tensors import empty_tensors, strange_type, unknown_tensors
from gguf_forge.architectures.templates import Match, Templates, fill, find_with_suffix, group_names, parse, role
from gguf_forge.architectures.tensor_names import known_names
from gguf_forge.errors import InputError, naming
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.element_type import ElementType
from gguf_forge.types.tensor_type import NVFP4

# The keys that the reference's converter counts the experts of NVFP4 checkpoints by.
_EXPERT_COUNTS = ("num_local_experts", "num_experts")
# Every model computes these tensors itself. The reference's converter leaves them out for every family.
_ALWAYS_DROPPED = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the file that will be written.

    Attributes:
        name: Its GGUF name.
        expr: The expression that computes its rows.
        forced_type: The type that the family gives it in the converter's file; None for the usual type.
    """

    name: str
    expr: TensorExpr
    forced_type: ForcedType | None = None


# The sort key of a tensor in the reference's order: generated tensors come first. The others follow in the order of the
# checkpoint tensors that completed them, and then in the order of the rules.
Position = tuple[int, int, int, int]


class _Collection:
    """The sources of one rule in one layer that were found so far."""

    def __init__(self) -> None:
        self.parts: dict[tuple[int, int | None], TensorExpr] = {}
        self.last = -1

    def add(self, number: int, source: int, expert: int | None, expr: TensorExpr) -> None:
        if (source, expert) not in self.parts:
            self.parts[source, expert] = expr
            self.last = number


class NameLookup:
    """Look-up tables of the names in a declaration."""

    def __init__(self, architecture: Architecture):
        self.drops = Templates((drop.source, drop) for drop in architecture.drops)
        self._rules = architecture.rules
        by_template: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, rule in enumerate(architecture.rules):
            for at, source in enumerate(rule.sources):
                for template in templates_of(source):
                    by_template[template].append((number, at))
        self.rules = Templates(by_template.items())
        names = {**known_names(architecture.name), **architecture.names}
        self.targets = Templates(names.items())

    def is_dropped(self, name: str, site: Site) -> bool:
        """Whether the file leaves a tensor out; `name` is that after the renames."""
        if name.endswith(_ALWAYS_DROPPED):
            return True
        drop = self.drops.find(name)
        return drop is not None and drop.value.when(site.at(drop.layer))

    def rules_for(self, name: str, site: Site) -> Match[list[tuple[int, int]]] | None:
        """The numbers of the rules that have a checkpoint tensor as a source, each with the source's number; None if
        there is none."""
        found = self.rules.find(name)
        if found is None or (found.layer is not None and found.layer >= site.block_count):
            return None
        here = site.at(found.layer)
        active = [(rule, source) for rule, source in found.value if self._rules[rule].when(here)]
        return found._replace(value=active) if active else None


def templates_of(source: Source) -> tuple[str, ...]:
    """The checkpoint templates that a rule's source may have."""
    if isinstance(source, AnyOf):
        return source.templates
    return (source.template if isinstance(source, Optional) else source,)


def plan_tensors(architecture: Architecture, site: Site) -> tuple[PlannedTensor, ...]:
    """Every tensor of the file, in the order of the reference's converter.

    Raises:
        UnsupportedError: checkpoint tensors that the declaration does not know (all of them, grouped).
        InputError: tensors or experts that are missing, doubled, or of the wrong shape.
    """
    generated = tuple(_forced(architecture, name, Constant(values)) for name, values in architecture.generated(site))
    planned = (*generated, *plan_changes(architecture, site))
    check_complete(architecture, site, [tensor.name for tensor in planned])
    check_shapes(architecture, site, {tensor.name: tensor.expr.shape for tensor in planned})
    return _with_block_scales(planned, counts_experts=bool(site.config.find(*_EXPERT_COUNTS)))


def _with_block_scales(planned: tuple[PlannedTensor, ...], *, counts_experts: bool) -> tuple[PlannedTensor, ...]:
    """Moves NVFP4 tensors to the front and adds their scale tensors.

    The reference's converter writes the tensors that it repacks before all others. If it does not know how many experts
    there are, it writes experts after the others that it repacks.
    """
    of_blocks = [tensor for tensor in planned if tensor.expr.dtype == NVFP4]
    if not counts_experts:
        of_blocks.sort(key=lambda tensor: len(tensor.expr.shape) > 2)
    first: list[PlannedTensor] = []
    for tensor in of_blocks:
        stem = tensor.name.removesuffix(".weight")
        with naming(tensor.name):
            scales = [PlannedTensor(stem + end, Constant(values)) for end, values in block_scales(tensor.expr)]
        first += [tensor, *scales]
    return (*first, *(tensor for tensor in planned if tensor.expr.dtype != NVFP4))


def plan_changes(architecture: Architecture, site: Site) -> tuple[PlannedTensor, ...]:
    """The tensors of the file that the site's tensors make. They may be only some of the model's, as in an adapter.

    Raises:
        UnsupportedError: tensors that the declaration does not know (all of them, grouped).
        InputError: an expert is missing, or a tensor is empty.
    """
    architecture = with_stacked_experts(architecture)
    placed: list[tuple[Position, PlannedTensor]] = []
    names = NameLookup(architecture)
    collected: dict[tuple[int, int | None], _Collection] = defaultdict(_Collection)
    unknown: list[str] = []

    for number, (stored_name, expr) in enumerate(site.tensors.items()):
        if not belongs_to(architecture, stored_name):
            continue
        name = renamed(architecture, stored_name, site)
        if names.is_dropped(name, site):
            continue
        mine = names.rules_for(name, site)
        target = find_with_suffix(names.targets, name)
        if (mine is not None or target is not None) and _holds_nothing(architecture, target, expr):
            raise empty_tensors(stored_name, site.tensors)
        if mine is not None:
            for rule_number, source in mine.value:
                collected[rule_number, mine.layer].add(number, source, mine.expert, expr)
        elif target is not None and not _is_outside(target, site):
            operation = operation_for(architecture, target.value)
            full = fill(target.value, target.layer, target.expert)
            placed.append(((1, 0, number, 0), _planned(architecture, full, operation, site.at(target.layer), [expr])))
        elif not (architecture.drop_extra_layers and _is_extra_layer(name, site)):
            unknown.append(stored_name)

    if unknown:
        raise unknown_tensors(architecture.name, unknown)
    placed.extend(_apply_rules(architecture, collected, site))
    placed.sort(key=lambda item: item[0])
    return tuple(tensor for _, tensor in placed)


def _holds_nothing(architecture: Architecture, target: Match[str] | None, expr: TensorExpr) -> bool:
    """Is it an empty tensor, or a scalar where the declaration does not expect one?"""
    takes_scalars = target is not None and operation_for(architecture, target.value) is vector
    return 0 in expr.shape or not (expr.shape or takes_scalars)


def named_targets(architecture: Architecture, site: Site) -> set[str]:
    """The GGUF names that the tables of names give to the site's tensors, whatever the rules make of these."""
    names = NameLookup(architecture)
    stored = (renamed(architecture, name, site) for name in site.tensors if belongs_to(architecture, name))
    found = (find_with_suffix(names.targets, name) for name in stored if not names.is_dropped(name, site))
    return {fill(target.value, target.layer, target.expert) for target in found if target is not None}


def renamed(architecture: Architecture, name: str, site: Site) -> str:
    """A checkpoint's name after the declaration's renames, as the name tables know it."""
    for rename in architecture.renames:
        name = rename(name, site)
    return name


def operation_for(architecture: Architecture, target: str) -> Operation:
    """The operation on the tensor that is mapped by name to this target."""
    names = role(target), target.removeprefix("blk.{i}.")
    return next(
        (op for glob, op in architecture.operations.items() if any(fnmatchcase(name, glob) for name in names)), keep
    )


def _is_outside(target: Match[str], site: Site) -> bool:
    """Whether the target belongs to a layer that the file does not have."""
    return target.layer is not None and "blk.{i}." in target.value and target.layer >= site.block_count


def _is_extra_layer(name: str, site: Site) -> bool:
    template, layer, _ = parse(name)
    return layer is not None and layer >= site.block_count and "layers.{i}" in template


def _apply_rules(
    architecture: Architecture, collected: Mapping[tuple[int, int | None], _Collection], site: Site
) -> Iterable[tuple[Position, PlannedTensor]]:
    last: dict[tuple[str | int, int | None], int] = defaultdict(int)
    for (number, layer), met in collected.items():
        group = architecture.rules[number].after or number, layer
        last[group] = max(last[group], met.last)
    for (number, layer), met in collected.items():
        rule, here = architecture.rules[number], site.at(layer)
        name = fill(rule.target, layer)
        sources = _parts_in_order(architecture, rule, here, met, name)
        met_last = last[rule.after or number, layer]
        position = (0, rule.first, layer or 0, number) if rule.first else (2 if rule.last else 1, 0, met_last, number)
        planned = _planned(architecture, name, rule.operation, here, sources)
        yield position, replace(planned, forced_type=rule.forced_type or planned.forced_type)


def _parts_in_order(
    architecture: Architecture, rule: Rule, site: Site, met: _Collection, target: str
) -> list[TensorExpr]:
    count = rule.count or architecture.expert_count
    wanted = [
        (at, expert)
        for at, source in enumerate(rule.sources)
        for expert in (range(count(site)) if "{e}" in templates_of(source)[0] else (None,))
    ]
    missing = [
        fill(templates_of(rule.sources[at])[0], site.layer, expert)
        for at, expert in wanted
        if (at, expert) not in met.parts and not isinstance(rule.sources[at], Optional)
    ]
    if missing:
        raise InputError(
            f"{len(missing)} of its {len(wanted)} parts are missing:\n  " + "\n  ".join(group_names(missing)),
            tensor=target,
            hint=f"is a shard missing? Or is config.json, which speaks of {count(site)} experts, of another model?"
            if any(expert is not None for _, expert in wanted)
            else "is a shard of the checkpoint missing?",
        )
    if len(met.parts) > len(wanted):
        problem = f"the checkpoint holds {len(met.parts)} parts, the config says {len(wanted)}"
        raise InputError(problem, tensor=target, hint="are config.json and the weights of the same model?")
    return [met.parts[key] for key in wanted if key in met.parts]


def _planned(
    architecture: Architecture, name: str, operation: Operation, site: Site, sources: list[TensorExpr]
) -> PlannedTensor:
    with naming(name):
        expr = operation(site, *sources)
        if isinstance(expr.dtype, ElementType):
            raise strange_type(expr.dtype, expr.shape)
        return _forced(architecture, name, expr)


def _forced(architecture: Architecture, name: str, expr: TensorExpr) -> PlannedTensor:
    what = role(parse(name).template)
    kept = architecture.kept_type(expr)
    if kept is not None:
        return PlannedTensor(name, expr, lambda base: kept)
    forced = next((kind for glob, kind in architecture.forced_types.items() if fnmatchcase(what, glob)), None)
    return PlannedTensor(name, expr, forced)
