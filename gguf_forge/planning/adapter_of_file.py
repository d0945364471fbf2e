"""A LoRA adapter as PEFT's folder has it, from the GGUF file of its factors: the way back of `adapter_tensors.py`.

Sources: `LoraConfig`, `save_pretrained` and `ParamWrapper` of PEFT; llama-adapter.cpp of llama.cpp.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.architectures.reverse import KnownModel, lead_back
from gguf_forge.architectures.templates import parse
from gguf_forge.checkpoint.adapter import WRAPPER
from gguf_forge.checkpoint.other_folders import cached_snapshots
from gguf_forge.checkpoint.stacked_pairs import nesting_order
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, printable
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.planning.model_of_file import model_of_file
from gguf_forge.tensors.expression import Stripe, TensorExpr
from gguf_forge.tensors.joined import Joined, Stack
from gguf_forge.tensors.low_rank import LowRank, factors
from gguf_forge.tensors.row_maps import RowRange, Transpose, reshaped, transposed

_A, _B = ".lora_a", ".lora_b"
_NORM = "norm.weight"
# Tables that are looked up by row. PEFT has other names for their factors.
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight")
_ALPHA, _INVOCATION = "adapter.lora.alpha", "adapter.alora.invocation_tokens"
_KNOWN_KEYS = ("adapter.type", _ALPHA, _INVOCATION)
_OF_HUB = re.compile(r"https?://huggingface\.co/([\w.-]+/[\w.-]+)")
_AS_GGUF = "the file itself works in llama.cpp, and stays the only form of this adapter"


@dataclass(frozen=True)
class PeftAdapter:
    """What the folder of an adapter holds: the tensors of adapter_model.safetensors, and adapter_config.json."""

    tensors: Mapping[str, TensorExpr]
    config: Mapping[str, Any]


def is_adapter_file(metadata: Metadata) -> bool:
    """Whether a GGUF file holds an adapter."""
    kind = metadata.get("general.type")
    return kind is not None and kind.data == "adapter"


def base_model_of(metadata: Metadata) -> str | None:
    """The hub's name of the base model, if the file has its address."""
    said = metadata.get("general.base_model.0.repo_url")
    found = _OF_HUB.fullmatch(said.data) if said is not None and isinstance(said.data, str) else None
    return found[1] if found else None


def adapter_of_file(metadata: Metadata, tensors: Mapping[str, TensorExpr], config: Path | None) -> PeftAdapter:
    """The adapter that a GGUF file holds, in the form of PEFT.

    A file has one alpha, which llama.cpp divides by the rank of each pair, as PEFT does. The file does not say how the
    base model's heads lie in its rows, so the base model's config is needed.

    Args:
        metadata: Keys of the file.
        tensors: Its tensors, each as float values.
        config: The base model's config.json, or its folder; None for one in the cache of huggingface_hub.

    Raises:
        InputError: there is no config, or a factor lacks its other one or does not fit it.
        UnsupportedError: the adapter is of another kind, or a tensor cannot be led back.
    """
    _check_kind(metadata)
    base, changes = _base_of(metadata, config), dict(_changes(tensors))
    for target in changes:
        if (parse(target).layer or 0) >= base.site.block_count:
            problem = f"the base model has {base.site.block_count} layers, by its config"
            raise InputError(problem, tensor=printable(target), hint="give the config.json of the right base model")
    targets = {id(expr): target for target, expr in changes.items()}
    order = {target: number for number, target in enumerate(changes)}
    pairs, whole = list[_PeftPair](), dict[str, TensorExpr]()
    found = lead_back(metadata, changes, base).tensors
    origins = {
        name: sorted({targets[id(leaf)] for leaf in _below(expr) if id(leaf) in targets}, key=order.__getitem__)
        for name, expr in found.items()
    }
    for name, of in sorted(origins.items(), key=lambda each: [order[target] for target in each[1]]):
        if any(isinstance(leaf, LowRank) for leaf in _below(found[name])):
            pairs.append(_PeftPair.of(name, found[name], is_embedding=of[0] in _EMBEDDINGS))
        else:
            whole[name] = found[name]
    turned = {pair.is_turned for pair in pairs if not pair.is_embedding and pair.parameter is None}
    if len(turned) > 1:
        problem = "PEFT has one setting for all matrices that are stored transposed, and these are only some of them"
        raise UnsupportedError(problem, hint=_AS_GGUF)
    held: dict[str, TensorExpr] = {f"{WRAPPER}{name}": expr for name, expr in whole.items()}
    for pair, depth in _nested(pairs):
        held |= pair.stored(depth)
    return PeftAdapter(held, _config(metadata, pairs, tuple(whole), base, turned=True in turned))


def _base_of(metadata: Metadata, config: Path | None) -> KnownModel:
    named = base_model_of(metadata)
    here = (path for path in cached_snapshots(named) if (path / "config.json").is_file()) if named else iter(())
    config = config or next(here, None)
    if config is None:
        hint = "give the base model's config.json, or its folder, with --config"
        if named is not None:
            hint += f"; `hf download {named} config.json` puts it where it is found"
        raise InputError("the file is a LoRA adapter, and lacks what its base model's config says", hint=hint)
    return model_of_file(metadata, config)


def _check_kind(metadata: Metadata) -> None:
    kind = metadata.get("adapter.type")
    if kind is None or kind.data != "lora":
        told = printable(str(kind.data)) if kind is not None else "no kind"
        raise UnsupportedError(f"the file holds an adapter of {told}, and only LoRA is led back", hint=_AS_GGUF)
    others = [key for key in metadata if key.startswith("adapter.") and key not in _KNOWN_KEYS]
    if others:
        raise UnsupportedError(f"PEFT's form has no place for {printable(others[0])}", hint=_AS_GGUF)


def _changes(tensors: Mapping[str, TensorExpr]) -> Iterator[tuple[str, TensorExpr]]:
    """The changed tensors of the base model's file: low-rank pairs, and norms as they are."""
    for name, expr in tensors.items():
        if name.endswith(_NORM):
            yield name, expr
        if name.endswith(_NORM) or (name.endswith(_B) and f"{name.removesuffix(_B)}{_A}" in tensors):
            continue
        stem = name.removesuffix(_A)
        if stem == name and not name.endswith(_B):
            raise UnsupportedError("neither a factor of a pair nor a norm", tensor=printable(name), hint=_AS_GGUF)
        if f"{stem}{_B}" not in tensors or stem == name:
            raise InputError("one of the two factors is missing", tensor=printable(name))
        a, b = expr, tensors[f"{stem}{_B}"]
        axes = max(len(a.shape), len(b.shape), 2)
        a, b = (reshaped(x, (*(1 for _ in range(axes - len(x.shape))), *x.shape)) for x in (a, b))
        try:
            yield stem, LowRank(transposed(a) if stem == _EMBEDDINGS[0] else a, b)
        except ForgeError as error:
            raise InputError(error.words.problem, tensor=printable(stem)) from None


def _below(expr: TensorExpr) -> Iterator[TensorExpr]:
    """The pairs below an expression, and all expressions that are below it beside them."""
    yield expr
    if not isinstance(expr, LowRank):
        for child in expr.children():
            yield from _below(child)


@dataclass(frozen=True)
class _PeftPair:
    """The factors of a module, or of a stack of experts, as PEFT multiplies them.

    Attributes:
        module: The module's name in the base model.
        parameter: The name of the stack in the module; None for a layer.
        a, b: The factors; of a stack with a first axis for the experts.
        is_turned: The base model stores the transpose of what the pair changes.
    """

    module: str
    parameter: str | None
    a: TensorExpr
    b: TensorExpr
    is_turned: bool = False
    is_embedding: bool = False

    @classmethod
    def of(cls, name: str, expr: TensorExpr, *, is_embedding: bool) -> _PeftPair:
        is_turned = isinstance(expr, Transpose)
        try:
            a, b = factors(expr.of if isinstance(expr, Transpose) else expr)
        except ForgeError as error:
            raise UnsupportedError(error.words.problem, tensor=printable(name), hint=_AS_GGUF) from None
        if len(expr.shape) == 2 and name.endswith(".weight"):
            a, b = (reshaped(x, x.shape[-2:]) for x in (a, b))
            return cls(name.removesuffix(".weight"), None, a, b, is_turned, is_embedding)
        if len(expr.shape) == 3 and not name.endswith(".weight") and expr.shape[0] > 1:
            count, (module, _, parameter) = expr.shape[0], name.rpartition(".")
            return cls(module, parameter, _for_each(a, count), _for_each(b, count), is_turned)
        problem = f"PEFT has no pair for a tensor of the shape {expr.shape}"
        raise UnsupportedError(problem, tensor=printable(name), hint=_AS_GGUF)

    @property
    def name(self) -> str:
        """What the patterns of a config call it."""
        return self.module if self.parameter is None else f"{self.module}.{self.parameter}"

    @property
    def rank(self) -> int:
        return self.a.shape[-2]

    def stored(self, depth: int) -> Mapping[str, TensorExpr]:
        """Its tensors, where `depth` pairs of other parameters of the module are around it."""
        at = f"{WRAPPER}{self.module}{'.base_layer' * depth}"
        if self.is_embedding:
            return {f"{at}.lora_embedding_A": self.a, f"{at}.lora_embedding_B": self.b}
        a, b = self.a, self.b
        if self.parameter is not None:  # A has the rows of one expert after those of another, in B columns take turns
            count, rows, rank = b.shape
            experts = (reshaped(RowRange(b, at * rows, (at + 1) * rows), (rows, rank)) for at in range(count))
            stripes = tuple(Stripe(at, count * rank, count, expert) for at, expert in enumerate(experts))
            a, b = reshaped(a, (count * rank, a.shape[-1])), Joined(stripes, -1, count * rank)
        return {f"{at}.lora_A.weight": a, f"{at}.lora_B.weight": b}


def _for_each(factor: TensorExpr, count: int) -> TensorExpr:
    """A factor of a stack, one for each expert."""
    if factor.shape[0] == count:
        return factor
    return Stack((reshaped(factor, factor.shape[-2:]),) * count)


def _nested(pairs: Sequence[_PeftPair]) -> Iterator[tuple[_PeftPair, int]]:
    """Each pair with the number of pairs that PEFT puts around it: those of later parameters of the same module."""
    parameters: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        if pair.parameter is not None:
            parameters[pair.module].add(pair.parameter)
    for pair in pairs:
        if pair.parameter is None:
            yield pair, 0
            continue
        names = nesting_order(parameters[pair.module])
        if names is None:
            problem = "in which order PEFT nests the pairs of these parameters is not known"
            raise UnsupportedError(problem, tensor=printable(pair.name), hint=_AS_GGUF)
        yield pair, len(names) - 1 - names.index(pair.parameter)


def _config(
    metadata: Metadata, pairs: Sequence[_PeftPair], whole: Sequence[str], base: KnownModel, *, turned: bool
) -> Mapping[str, Any]:
    said = metadata.get(_ALPHA)
    alpha = float(said.data) if said is not None else 0.0
    rank = Counter(pair.rank for pair in pairs).most_common(1)[0][0] if pairs else 1
    others = {pair.name: pair.rank for pair in pairs if pair.rank != rank}
    invocation = metadata.get(_INVOCATION)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if base.class_name.endswith(("ForCausalLM", "LMHeadModel")) else None,
        "base_model_name_or_path": base_model_of(metadata),
        "inference_mode": True,
        "r": rank,
        # llama.cpp multiplies products by 1 if alpha is 0
        "lora_alpha": (int(alpha) if alpha.is_integer() else alpha) or rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": turned,
        "init_lora_weights": True,
        "rank_pattern": others,
        "alpha_pattern": {} if alpha else others,
        "target_modules": [pair.module for pair in pairs if pair.parameter is None],
    }
    some = {
        "target_parameters": [pair.name for pair in pairs if pair.parameter is not None],
        "modules_to_save": [name.removesuffix(".weight") for name in whole],
        "alora_invocation_tokens": list(invocation.data) if invocation is not None else [],
    }
    return config | {key: names for key, names in some.items() if names}
