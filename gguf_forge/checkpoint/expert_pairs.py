"""Low-rank pairs of single experts, merged into a model that stores all experts of a layer as one tensor.

Adapters have such pairs if they were made with a version of transformers that has a layer for each expert. The stack
`gate_up_proj` has the rows of an expert's gate above those of its up, as transformers 5 makes it of single matrices.
Programs that train GPT-OSS take its stacks apart, expert by expert, and leave each matrix whole.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from gguf_forge.checkpoint.adapter import LowRankPair
from gguf_forge.checkpoint.stacked_pairs import Change, Module, stores_rows_of_inputs
from gguf_forge.errors import UnsupportedError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import Stack, concat
from gguf_forge.tensors.merged import Merged
from gguf_forge.tensors.row_maps import RowRange, Slice, reshaped, transposed

_SINGLE = re.compile(r"(.*\.experts)\.(\d{1,6})\.(gate_proj|up_proj|down_proj|w1|w2|w3)")
_TAKEN_APART = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)s\.(\d{1,6})")
_GATE_UP, _DOWN = "gate_up_proj", "down_proj"
# A single matrix -> the stack that it is in, and its half of the rows; None for all.
_PLACES: Mapping[str, tuple[str, int | None]] = {
    **dict.fromkeys(("gate_proj", "w1"), (_GATE_UP, 0)),
    **dict.fromkeys(("up_proj", "w3"), (_GATE_UP, 1)),
    **dict.fromkeys(("down_proj", "w2"), (_DOWN, None)),
}


@dataclass(frozen=True)
class ExpertPair:
    """A pair of one expert, and its place in a stack.

    Attributes:
        pair: The adapter's.
        scale: What the product of its factors is multiplied by.
        stack: The name of the stack in the base model.
        expert: The number of the expert.
        half: Which half of the expert's rows it changes; None for all rows.
        turned: The stack is stored with a row for each input.
    """

    pair: LowRankPair
    scale: float
    stack: str
    expert: int
    half: int | None
    turned: bool


def expert_pair(pair: LowRankPair, scale: float, below: Callable[[str], Module]) -> ExpertPair | None:
    """The place of a pair in a stack of the base model; None if it is no pair of one expert, or does not fit.

    Args:
        pair: The adapter's.
        scale: What the product of its factors is multiplied by.
        below: The tensors of a module of the base model, by the ends of their names.

    Raises:
        UnsupportedError: the rows of gates and ups take turns in the stack, or the pair is of DoRA or has a bias.
    """
    if (single := _SINGLE.fullmatch(pair.module)) is not None:
        (parameter, half), number = _PLACES[single[3]], int(single[2])
    elif (single := _TAKEN_APART.fullmatch(pair.module)) is not None:
        parameter, half, number = single[2], None, int(single[3])
    else:
        return None
    # Mixtral's and MiniMax's module has another name in transformers 5.
    for parent in dict.fromkeys((single[1], single[1].replace(".block_sparse_moe.", ".mlp."))):
        module = below(parent)
        shape = module[parameter].shape if parameter in module else ()
        if len(shape) != 3 or number >= shape[0]:
            continue
        rows, columns = pair.b.shape[0] * (1 if half is None else 2), pair.a.shape[-1]
        fits = [turned for turned, size in ((False, (rows, columns)), (True, (columns, rows))) if shape[1:] == size]
        if not fits:
            continue
        _refuse_others(pair, is_in_turns=half is not None and f"{_GATE_UP}_bias" in module)
        turned = fits[0] if len(fits) == 1 else stores_rows_of_inputs(module)
        return ExpertPair(pair, scale, f"{parent}.{parameter}", number, half, turned)
    return None


def _refuse_others(pair: LowRankPair, *, is_in_turns: bool) -> None:
    what = "a bias" if pair.bias is not None else "DoRA" if pair.magnitude is not None else ""
    if what or is_in_turns:
        problem = f"a pair with {what} of one expert is not merged into a stack of experts"
        if is_in_turns:
            problem = "the base model stores rows of gates and ups in turns, and the adapter changes them apart"
        hint = "merge it with PEFT's merge_and_unload, and convert the result"
        raise UnsupportedError(problem, tensor=pair.module, hint=hint)


def in_stacks(pairs: Iterable[ExpertPair], adapter: str) -> Iterator[tuple[str, Change]]:
    """The stacks that pairs change, each with the change by all its pairs.

    Args:
        pairs: Of one adapter.
        adapter: Its name, for people.
    """
    by_stack: dict[str, dict[int, list[ExpertPair]]] = defaultdict(lambda: defaultdict(list))
    for each in pairs:
        by_stack[each.stack][each.expert].append(each)
    for stack, experts in by_stack.items():
        yield stack, _change(experts, adapter)


def _change(experts: Mapping[int, list[ExpertPair]], adapter: str) -> Change:
    turned = next(iter(experts.values()))[0].turned

    def change(value: TensorExpr, before: TensorExpr | None) -> TensorExpr:
        whole = transposed(value) if turned else value
        n_rows = whole.shape[1]
        matrices = (
            reshaped(RowRange(whole, expert * n_rows, (expert + 1) * n_rows), whole.shape[1:])
            for expert in range(whole.shape[0])
        )
        stacked = Stack(tuple(_merged(matrix, experts.get(at, ()), adapter) for at, matrix in enumerate(matrices)))
        return transposed(stacked) if turned else stacked

    return change


def _merged(matrix: TensorExpr, pairs: Iterable[ExpertPair], adapter: str) -> TensorExpr:
    """The matrix of one expert with its pairs."""
    for each in pairs:
        if each.half is None:
            matrix = Merged(matrix, each.pair.a, each.pair.b, each.scale, adapter)
            continue
        middle = matrix.shape[0] // 2
        halves = [Slice(matrix, -2, 0, middle), Slice(matrix, -2, middle, 2 * middle)]
        changed = [
            Merged(half, each.pair.a, each.pair.b, each.scale, adapter) if at == each.half else half
            for at, half in enumerate(halves)
        ]
        matrix = concat(tuple(changed), -2)
    return matrix
