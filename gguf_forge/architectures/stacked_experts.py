"""Rules for experts that a checkpoint holds stacked: one tensor for all matrices of a layer.

transformers 5 saves them so, gate above up, and MLX as `switch_mlp`. A declaration names the experts' single matrices,
and these rules follow from it.
Sources: the conversion mapping of transformers 5; `SwitchGLU` and `SwitchMLP` of mlx-lm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from gguf_forge.architectures.declaration import Architecture, Operation, Rule
from gguf_forge.architectures.operations import half, keep, stack

_ONE = ".experts.{e}."
_GATE, _UP, _DOWN = (f"blk.{{i}}.ffn_{part}_exps.weight" for part in ("gate", "up", "down"))
# A stack: its name after that of the module, what is done to it, and the target.
_Stack = tuple[str, Operation, str]
_OF_TRANSFORMERS: tuple[_Stack, ...] = (
    ("experts.down_proj", keep, _DOWN),
    ("experts.gate_up_proj", half(0), _GATE),
    ("experts.gate_up_proj", half(1), _UP),
)
_OF_MLX: tuple[_Stack, ...] = (
    ("switch_mlp.down_proj.weight", keep, _DOWN),
    ("switch_mlp.gate_proj.weight", keep, _GATE),
    ("switch_mlp.up_proj.weight", keep, _UP),
)
# The same for experts without a gate.
_PLAIN_OF_TRANSFORMERS: tuple[_Stack, ...] = (
    ("experts.down_proj", keep, _DOWN),
    ("experts.up_proj", keep, _UP),
)
_PLAIN_OF_MLX: tuple[_Stack, ...] = (
    ("switch_mlp.fc2.weight", keep, _DOWN),
    ("switch_mlp.fc1.weight", keep, _UP),
)


def with_stacked_experts(architecture: Architecture) -> Architecture:
    """The declaration with rules for stacked experts, where it has rules for single ones."""
    return architecture.derive(architecture.name, rules=(*architecture.rules, *_stacked(architecture)))


def _stacked(architecture: Architecture) -> Iterator[Rule]:
    """The rules that the declaration lacks. Names that it declares itself keep their meaning."""
    declared = set(architecture.names)
    declared |= {source for rule in architecture.rules for source in rule.sources if isinstance(source, str)}
    for module, rules in _experts_by_module(architecture).items():
        has_gate = any(rule.target == _GATE for rule in rules)
        # Mixtral's and MiniMax's module has another name in transformers 5.
        for other in dict.fromkeys((module, module.replace(".block_sparse_moe", ".mlp"))):
            yield from _with(rules, other, _OF_MLX if has_gate else _PLAIN_OF_MLX, last=True)
            if f"{other}.experts.gate_up_proj" not in declared:
                yield from _with(rules, other, _OF_TRANSFORMERS if has_gate else _PLAIN_OF_TRANSFORMERS)


def _with(rules: list[Rule], module: str, stacks: tuple[_Stack, ...], *, last: bool = False) -> Iterator[Rule]:
    """The rules of single experts with stacks as their sources. `last`: the targets are written after all others, as
    the reference's converter does with weights that it puts together."""
    for name, operation, target in stacks:
        for rule in rules:
            if rule.target == target:
                yield replace(rule, sources=(f"{module}.{name}",), operation=operation, last=last)


def _experts_by_module(architecture: Architecture) -> Mapping[str, list[Rule]]:
    """The rules of single experts, for each module of a layer that has experts."""
    found: dict[str, list[Rule]] = {}
    for rule in architecture.rules:
        source = rule.sources[0]
        if rule.operation is not stack or len(rule.sources) > 1 or not isinstance(source, str):
            continue
        if _ONE in source and rule.target in (_GATE, _UP, _DOWN):
            found.setdefault(source.partition(_ONE)[0], []).append(rule)
    return found
