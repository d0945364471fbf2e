"""The tensors of a LoRA adapter's GGUF file: two factors for each tensor that the adapter changes.

Source: `LoraModel` in llama.cpp's convert_lora_to_gguf.py, which does not know stacked experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.mapping import PlannedTensor, plan_changes
from gguf_forge.checkpoint.adapter import Adapter, LowRankPair, refuse_in_file
from gguf_forge.checkpoint.added_tokens import check_tokens
from gguf_forge.checkpoint.as_stored import as_stored
from gguf_forge.checkpoint.stacked_pairs import factors_of_stack, parameters_of_pairs
from gguf_forge.errors import ForgeError, InputError, UnsupportedError
from gguf_forge.planning.model_plan import site_of
from gguf_forge.storage.folder import Folder
from gguf_forge.tensors.arithmetic import Multiply
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.low_rank import LowRank, factors
from gguf_forge.tensors.row_maps import transposed

# Stacked experts whose inputs, and whose outputs, are as wide as the model.
_FROM_WIDTH = ("ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_gate_up_exps.weight")
_TO_WIDTH = ("ffn_down_exps.weight",)


def tensors_of_adapter(
    adapter: Adapter, architecture: Architecture, raw: Mapping[str, Any], base: Folder, *, as_reference: bool
) -> tuple[PlannedTensor, ...]:
    """The tensors of an adapter's file, in the order of the reference's converter.

    Args:
        adapter: The adapter.
        architecture: The declaration of its base model.
        raw: The base model's config.json.
        base: The base model's folder.
        as_reference: The factors are those that are stored, whatever the config says of their modules.

    Raises:
        UnsupportedError: a tensor that has no place in an adapter's file, or is not known.
    """

    check_tokens(adapter, Config.raw(raw).get("vocab_size"))

    def planned(*, turned: bool) -> tuple[PlannedTensor, ...]:
        changes = _changes(adapter, as_reference=as_reference, turned=turned)
        return plan_changes(architecture, site_of(architecture, raw, base, changes))

    if not adapter.config.target_parameters:
        return tuple(_in_factors(planned(turned=False)))
    # Whether a class stores its stacks with a row for each input is not in its config; the widths tell it.
    width = Config.raw(raw).get("hidden_size")
    found: list[tuple[PlannedTensor, ...]] = []
    for turned in (False, True):
        with suppress(InputError):
            found.append(planned(turned=turned))
    fitting = [tensors for tensors in found if all(_is_as_wide(tensor, width) for tensor in tensors)]
    if len(fitting) != 1:
        raise refuse_in_file(adapter, "a stack of experts whose orientation its shape does not tell")
    return tuple(_in_factors(fitting[0]))


def _is_as_wide(tensor: PlannedTensor, width: Any) -> bool:
    """Whether the change of stacked experts has the model's width where it must; other tensors may be as they are."""
    if tensor.name.endswith(_FROM_WIDTH):
        return bool(tensor.expr.shape[-1] == width)
    return not tensor.name.endswith(_TO_WIDTH) or bool(tensor.expr.shape[-2] == width)


def _changes(adapter: Adapter, *, as_reference: bool, turned: bool) -> Mapping[str, TensorExpr]:
    """The base model's tensors that an adapter changes: norms as they are, then low-rank pairs. `turned`: stacks of
    experts are stored with a row for each input."""
    if adapter.config.is_dora:
        raise refuse_in_file(adapter, "DoRA")
    whole: dict[str, TensorExpr] = {}
    for name, tensor in adapter.whole(with_base=False).items():
        if "_layernorm" not in name and ".norm" not in name:
            raise refuse_in_file(adapter, "a whole tensor that is not a norm", tensor.name)
        whole[name] = as_stored(tensor)
    pairs = adapter.pairs()
    parameters = parameters_of_pairs(pairs, adapter.config)
    changed = {}
    for pair, parameter in zip(pairs, parameters, strict=True):
        if pair.bias is not None:
            raise refuse_in_file(adapter, "the bias of a pair", pair.module)
        if pair.magnitude is not None:
            raise refuse_in_file(adapter, "DoRA", pair.module)
        if pair.depth and parameter is None:
            raise refuse_in_file(adapter, "a stack that the config does not name", pair.module)
        if parameter is None:
            changed[f"{pair.module}.weight"] = _pair(adapter, pair, as_reference=as_reference)
        else:
            product = _stack(adapter, pair, f"{pair.module}.{parameter}")
            changed[f"{pair.module}.{parameter}"] = transposed(product) if turned else product
    return whole | changed


def _stack(adapter: Adapter, pair: LowRankPair, name: str) -> TensorExpr:
    rank = adapter.config.stacked_rank(name)
    if pair.rank % rank or pair.b.shape[1] != pair.rank:
        raise InputError(f"its {pair.rank} rows are not experts of rank {rank}", file=adapter.file.path, tensor=name)
    a, b = factors_of_stack(pair, pair.rank // rank)
    factor = adapter.config.factor_in_file(name, rank)
    return LowRank(a, Multiply(b, factor) if factor != 1 else b)


def _pair(adapter: Adapter, pair: LowRankPair, *, as_reference: bool) -> TensorExpr:
    factor = 1.0 if as_reference else adapter.config.factor_in_file(pair.module, pair.rank)
    try:
        product = LowRank(pair.a, Multiply(pair.b, factor) if factor != 1 else pair.b)
    except InputError as error:
        raise InputError(error.words.problem, tensor=f"{pair.module}.weight") from None
    is_turned = adapter.config.is_transposed and not pair.of_embedding and not as_reference
    return transposed(product) if is_turned else product


def _in_factors(planned: tuple[PlannedTensor, ...]) -> Iterator[PlannedTensor]:
    """The tensors in the file for planned changes: the two factors of each, or an unchanged norm."""
    for tensor in planned:
        if not _has_factors(tensor.expr):
            yield tensor
            continue
        try:
            a, b = factors(tensor.expr)
        except ForgeError as error:
            raise UnsupportedError(error.words.problem, tensor=tensor.name, hint=error.words.hint) from None
        # llama.cpp looks up embeddings by columns of A, so A is stored transposed
        yield PlannedTensor(f"{tensor.name}.lora_a", transposed(a) if tensor.name == "token_embd.weight" else a)
        yield PlannedTensor(f"{tensor.name}.lora_b", b)


def _has_factors(expr: TensorExpr) -> bool:
    return isinstance(expr, LowRank) or any(_has_factors(child) for child in expr.children())
