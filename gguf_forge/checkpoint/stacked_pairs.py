"""Low-rank pairs of experts: those for a stack of all experts of a layer, as PEFT's `target_parameters` makes them.

Such a pair has the factors of all experts: A has the rows of one expert after those of another, and in B the columns of
the experts take turns. The checkpoint may hold the stack as one tensor, or each expert's matrices for themselves.

Source: `ParamWrapper.get_delta_weight` of PEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gguf_forge.checkpoint.adapter import LowRankPair
from gguf_forge.checkpoint.adapter_config import AdapterConfig
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.merged import Merged
from gguf_forge.tensors.row_maps import RowRange, Slice, reshaped, transposed

_GATE_UP, _DOWN = "gate_up_proj", "down_proj"
# The parameters of experts in the order in which their classes have them.
_ORDER = (_GATE_UP, "up_proj", _DOWN)
# The names of an expert's gate, up and down matrices.
_OF_EXPERT = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))
# More than any model has.
_MOST_EXPERTS = 8192
# What an expression becomes; the second one is as in `Merged.before`, which no stack needs.
Change = Callable[[TensorExpr, TensorExpr | None], TensorExpr]
Module = Mapping[str, TensorExpr]


@dataclass(frozen=True)
class _Fit:
    """A parameter that a pair fits.

    Attributes:
        parameter: Its name in the module.
        n_experts: How many matrices it stacks.
        turned: Whether these are stored with a row for each input.
    """

    parameter: str
    n_experts: int
    turned: bool = False


def fit_of(pair: LowRankPair, module: Module) -> _Fit | None:
    """The parameter of a module that a pair changes, found by its shape; None if there is none, or more than one.

    Args:
        pair: The adapter's.
        module: The tensors of the base model below the pair's module, by the ends of their names.
    """
    found = list(_fits(pair, module))
    if len(found) == 2 and found[0].parameter == found[1].parameter:  # its matrices are square
        found = [fit for fit in found if fit.turned == stores_rows_of_inputs(module)]
    return found[0] if len(found) == 1 else None


def _fits(pair: LowRankPair, module: Module) -> Iterator[_Fit]:
    inputs, outputs = pair.a.shape[1], pair.b.shape[0]
    for name, shape in _shapes(module).items():
        if shape[0] > _MOST_EXPERTS or pair.a.shape[0] != pair.b.shape[1] or pair.a.shape[0] % shape[0]:
            continue
        if shape[1:] == (outputs, inputs):
            yield _Fit(name, shape[0])
        if shape[1:] == (inputs, outputs):
            yield _Fit(name, shape[0], turned=True)


def _shapes(module: Module) -> Mapping[str, tuple[int, int, int]]:
    """The shapes of a module's stacks, also of those that the checkpoint holds expert by expert."""
    found = {
        name: (expr.shape[0], expr.shape[1], expr.shape[2])
        for name, expr in module.items()
        if "." not in name and len(expr.shape) == 3
    }
    names = _names_of_expert(module)
    if names is not None:
        gate, up, down = (module[f"0.{name}.weight"] for name in names)
        count = sum(name.endswith(f".{names[0]}.weight") for name in module)
        if gate.shape == up.shape and len(gate.shape) == len(down.shape) == 2:
            found[_GATE_UP] = (count, 2 * gate.shape[0], gate.shape[1])
            found[_DOWN] = (count, *down.shape)
    return found


def _names_of_expert(module: Module) -> tuple[str, str, str] | None:
    return next((names for names in _OF_EXPERT if all(f"0.{name}.weight" in module for name in names)), None)


def stores_rows_of_inputs(module: Module) -> bool:
    """Whether a module stores its stacks with a row for each input. The gates and ups of all experts tell it, as they
    have twice as many outputs as there are inputs of the other stack."""
    shapes = _shapes(module)
    if _GATE_UP not in shapes or _DOWN not in shapes:
        return False
    return shapes[_GATE_UP][2] == 2 * shapes[_DOWN][1]


def parameters_of_pairs(pairs: Sequence[LowRankPair], config: AdapterConfig) -> list[str | None]:
    """The stack that each pair changes, as the config tells it; None for a pair of a layer.

    PEFT puts the pairs of a module around each other in the order of the module's parameters, the first one innermost.
    """
    innermost: dict[str, int] = {}
    for pair in pairs:
        innermost[pair.module] = max(innermost.get(pair.module, 0), pair.depth)
    return [_parameter(pair, innermost[pair.module], config.target_parameters) for pair in pairs]


def _parameter(pair: LowRankPair, innermost: int, targets: Sequence[str]) -> str | None:
    ends = (target.rpartition(".")[2] for target in targets if f".{pair.module}.{_last(target)}".endswith(f".{target}"))
    names = nesting_order(set(ends) - {"weight"})
    return names[innermost - pair.depth] if names is not None and innermost < len(names) else None


def nesting_order(parameters: Collection[str]) -> list[str] | None:
    """The parameters of a module in the order in which PEFT nests their pairs, the innermost first; None if the order
    is not known."""
    known = len(parameters) <= 1 or set(parameters) <= set(_ORDER)
    return sorted(parameters, key=lambda name: _ORDER.index(name) if name in _ORDER else -1) if known else None


def _last(target: str) -> str:
    return target.rpartition(".")[2]


def factors_of_stack(pair: LowRankPair, n_experts: int) -> tuple[TensorExpr, TensorExpr]:
    """A (experts, rank, inputs) and B (experts, outputs, rank) of all experts."""
    experts = (Slice(pair.b, -1, expert, pair.b.shape[1], n_experts) for expert in range(n_experts))
    return reshaped(pair.a, (n_experts, pair.rank // n_experts, pair.a.shape[-1])), Stack(tuple(experts))


def on_stack(pair: LowRankPair, fit: _Fit, module: Module, scale: float, adapter: str) -> Iterator[tuple[str, Change]]:
    """The tensors of a module that a pair changes, by the ends of their names, and the change of each.

    Args:
        pair: The adapter's.
        fit: The parameter that it changes.
        module: As for `fit_of`.
        scale: What the product of the factors is multiplied by.
        adapter: The name of the adapter, for people.
    """
    if fit.parameter in module:
        yield fit.parameter, lambda value, before: _stack(pair, fit, value, scale, adapter)
        return
    gate, up, down = _names_of_expert(module) or ("", "", "")
    n_rows = pair.b.shape[0]
    rows = {down: (0, n_rows)} if fit.parameter == _DOWN else {gate: (0, n_rows // 2), up: (n_rows // 2, n_rows)}
    for expert in range(fit.n_experts):
        a, b = _of_expert(pair, fit, expert)
        for name, (start, stop) in rows.items():
            part = Slice(b, -2, start, stop)
            yield f"{expert}.{name}.weight", _change(a, part, scale, adapter)


def _change(a: TensorExpr, b: TensorExpr, scale: float, adapter: str) -> Change:
    return lambda value, before: Merged(value, a, b, scale, adapter)


def _of_expert(pair: LowRankPair, fit: _Fit, expert: int) -> tuple[TensorExpr, TensorExpr]:
    """The factors of one expert."""
    rank = pair.a.shape[0] // fit.n_experts
    return (
        Slice(pair.a, -2, expert * rank, (expert + 1) * rank),
        Slice(pair.b, -1, expert, pair.b.shape[1], fit.n_experts),
    )


def _stack(pair: LowRankPair, fit: _Fit, value: TensorExpr, scale: float, adapter: str) -> TensorExpr:
    whole = transposed(value) if fit.turned else value
    height, experts = whole.shape[1], list[TensorExpr]()
    for expert in range(fit.n_experts):
        matrix = reshaped(RowRange(whole, expert * height, (expert + 1) * height), whole.shape[1:])
        experts.append(Merged(matrix, *_of_expert(pair, fit, expert), scale, adapter))
    stacked = Stack(tuple(experts))
    return transposed(stacked) if fit.turned else stacked
