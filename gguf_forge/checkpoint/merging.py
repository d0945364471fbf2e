"""LoRA adapters merged into the logical tensors of their base model, as PEFT's `merge_and_unload` does.

The result is a view: tensors that an adapter changes become expressions that add the change when rows are read. What
comes after (the declaration, the recipe, the engine) does not know of adapters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from math import prod

from gguf_forge.checkpoint.adapter import TRAINED_ROWS, Adapter, LowRankPair
from gguf_forge.checkpoint.added_tokens import (
    EMBEDDINGS,
    HEAD,
    check_rows,
    is_of_tokens,
    of_other_tokens,
    repeats_embeddings,
    trains_embeddings,
)
from gguf_forge.checkpoint.as_stored import as_stored, widened
from gguf_forge.checkpoint.expert_pairs import ExpertPair, expert_pair, in_stacks
from gguf_forge.checkpoint.safetensors_file import StoredTensor
from gguf_forge.checkpoint.stacked_pairs import fit_of, on_stack
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, naming, printable, some_of
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.merged import AddedVector, Brought, Merged, ReplacedRows, rounded, unpacked
from gguf_forge.tensors.row_maps import reshaped, transposed
from gguf_forge.types.element_type import ElementType
from gguf_forge.types.tensor_type import F32, TensorType
from gguf_forge.wording import log_of

log = log_of(__name__)

# Parts of names that the same model's modules have in one version of transformers or class, and not in another.
_WRAPPERS = frozenset(("model", "language_model", "transformer"))


@dataclass(frozen=True)
class ScaledAdapter:
    """An adapter, and the factor that the user gives its change."""

    adapter: Adapter
    factor: float = 1.0

    @property
    def name(self) -> str:
        return self.adapter.folder.path.name

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.adapter.file,)

    def scale(self, module: str, rank: int) -> float:
        return self.adapter.config.scale(module, rank) * self.factor


def changes_head(adapters: Sequence[ScaledAdapter]) -> bool:
    """Whether an adapter changes the model's head apart from the embeddings, so that they can no longer be one."""
    return any(
        trains_embeddings(each.adapter) or any(name.endswith(HEAD) for name in _names_of(each.adapter))
        for each in adapters
    )


def changes_embeddings(adapters: Sequence[ScaledAdapter]) -> bool:
    """Whether an adapter changes the embeddings, and with them a head that is one with them."""
    return any(name.endswith(EMBEDDINGS) for each in adapters for name in _names_of(each.adapter))


def _names_of(adapter: Adapter) -> Iterator[str]:
    repeated = repeats_embeddings(adapter)
    yield from (f"{pair.module}.weight" for pair in adapter.pairs())
    yield from (name.replace(TRAINED_ROWS, ".weight") for name in adapter.whole() if name not in repeated)


@dataclass
class _View:
    """The tensors of a base model, and what adapters have made of them so far.

    Attributes:
        base: The tensors without adapters.
        values: What those that are changed have become, not rounded yet.
        types: The types that these are rounded to.
    """

    base: dict[str, TensorExpr]
    values: dict[str, TensorExpr] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_form: dict[str, list[str]] = {}
        for name in self.base:
            self._by_form.setdefault(_form(name), []).append(name)
        self._forms = sorted(self._by_form)

    def find(self, name: str) -> str | None:
        """The base model's name of a tensor that an adapter names."""
        found = [name] if name in self.base else self._by_form.get(_form(name), ())
        return found[0] if len(found) == 1 else None

    def below(self, module: str) -> Mapping[str, TensorExpr]:
        """The tensors of a module, by the ends of their names."""
        beginning = f"{_form(module)}."
        forms = self._forms[bisect_left(self._forms, beginning) : bisect_left(self._forms, f"{beginning}\U0010ffff")]
        return {form.removeprefix(beginning): self.base[self._by_form[form][0]] for form in forms}

    def replace(self, name: str, expr: TensorExpr, *, is_copy: bool) -> None:
        """Takes another tensor for one of the base. `is_copy`: it is a copy of that, which an adapter brings along."""
        before = self.base[name].dtype
        self.types[name] = before if is_copy and before.is_float else expr.dtype
        self.base[name] = self.values[name] = expr

    def change(self, name: str, change: Callable[[TensorExpr, TensorExpr | None], TensorExpr]) -> None:
        """Changes a tensor: `change` gets it as float32, and as it was before all adapters if it has changed."""
        base = self.base[name]
        if isinstance(base.dtype, ElementType):
            raise UnsupportedError(f"weights of type {base.dtype} are not merged", tensor=name)
        before = unpacked(base)
        self.types.setdefault(name, base.dtype if base.dtype.is_float else F32)
        value = self.values.get(name, before)
        with naming(name):
            self.values[name] = change(value, before if value is not before else None)

    def result(self) -> Mapping[str, TensorExpr]:
        changed = {name: rounded(value, self.types[name]) for name, value in self.values.items()}
        return {name: changed.get(name, expr) for name, expr in self.base.items()}


def merged(tensors: Mapping[str, TensorExpr], adapters: Sequence[ScaledAdapter]) -> Mapping[str, TensorExpr]:
    """A model's tensors with adapters merged in, one after the other, each result rounded once in the end.

    Args:
        tensors: The logical tensors of the base model.
        adapters: In the order in which they are applied.

    Raises:
        InputError: an adapter was made for another model.
        UnsupportedError: an adapter does more than can be merged into weights.
    """
    if not adapters:
        return tensors
    view = _View(_with_head(tensors) if changes_head(adapters) else dict(tensors))
    for each in adapters:
        _check_kind(each.adapter)
        _apply(each, view)
        log.info("%s: merged, scaled by %g", each.adapter.folder.path, each.factor)
    return view.result()


def _with_head(tensors: Mapping[str, TensorExpr]) -> dict[str, TensorExpr]:
    """The tensors with a head of its own where the model holds it as one with the embeddings."""
    embeddings = [name for name in tensors if name.endswith(EMBEDDINGS)]
    if len(embeddings) != 1 or any(name.endswith(HEAD) for name in tensors):
        return dict(tensors)
    names = list(tensors)
    place = next((at for at, name in enumerate(names) if name > HEAD), len(names))
    names.insert(place, HEAD)
    return {name: tensors[embeddings[0] if name == HEAD else name] for name in names}


def _apply(each: ScaledAdapter, view: _View) -> None:
    adapter, unknown, of_experts, below = each.adapter, list[str](), list[ExpertPair](), cache(view.below)
    whole, repeated = adapter.whole(), repeats_embeddings(adapter)
    for name in sorted(whole, key=lambda name: name.endswith(TRAINED_ROWS)):  # whole tensors first
        tensor = whole[name]
        target = view.find(name.replace(TRAINED_ROWS, ".weight"))
        if target is not None and name.endswith(TRAINED_ROWS):
            rows, n_tokens = widened(as_stored(tensor)), view.base[target].n_rows
            index = adapter.config.trained_tokens(name.removesuffix(TRAINED_ROWS), n_tokens)
            view.change(target, partial(_with_rows, rows, index, each.name))
            continue
        if target is None:
            unknown += [name] if name not in repeated else []
            continue
        has_rows_of_its_own = is_of_tokens(name) and tensor.shape[1:] == view.base[target].shape[1:]
        if tensor.shape != view.base[target].shape and not has_rows_of_its_own:
            raise _of_another(adapter, name, tensor.shape, view.base[target].shape)
        view.replace(target, Brought(widened(as_stored(tensor)), each.name), is_copy=_is_copy(adapter, name, tensor))
    check_rows(adapter, {name: expr.shape[0] for name, expr in view.base.items() if is_of_tokens(name)})
    for pair in adapter.pairs():
        target = view.find(f"{pair.module}.weight")
        if target is not None and pair.depth == 0:
            _apply_pair(each, pair, target, view)
        elif (fit := fit_of(pair, module := view.below(pair.module))) is not None:
            scale = each.scale(f"{pair.module}.{fit.parameter}", pair.rank // fit.n_experts)
            for end, change in on_stack(pair, fit, module, scale, each.name):
                target = view.find(f"{pair.module}.{end}")
                assert target is not None
                view.change(target, change)
        elif (single := expert_pair(pair, each.scale(pair.module, pair.rank), below)) is not None:
            of_experts.append(single)
        else:
            unknown.append(pair.module)
    for stack, change in in_stacks(of_experts, each.name):
        target = view.find(stack)
        assert target is not None
        view.change(target, change)
    if unknown:
        problem = f"{len(unknown)} tensors that the adapter changes are not in the model: {some_of(unknown)}"
        raise InputError(problem, file=adapter.file.path, hint=_named_base(adapter))


def _is_copy(adapter: Adapter, name: str, tensor: StoredTensor) -> bool:
    """Whether a whole tensor is a copy of the base model's, which PEFT stores beside a change or with other rows."""
    return ".base_layer." in tensor.name or (
        is_of_tokens(name) and not adapter.config.saves(name.removesuffix(".weight"))
    )


def _apply_pair(each: ScaledAdapter, pair: LowRankPair, target: str, view: _View) -> None:
    shape = view.base[target].shape
    want = _shape_of(pair, turned=_is_turned(each.adapter, pair, shape))
    if len(shape) < 2 or (shape[0], prod(shape[1:])) != want:
        raise _of_another(each.adapter, pair.module, want, shape)
    view.change(target, lambda value, before: _with_pair(each, pair, value, before))
    if pair.bias is not None:
        bias = view.find(f"{pair.module}.bias")
        if bias is None or view.base[bias].shape != pair.bias.shape:
            problem = "the adapter adds to a bias, and the model has none of its length"
            raise InputError(problem, file=each.adapter.file.path, tensor=pair.module, hint=_named_base(each.adapter))
        added, scale = pair.bias, each.scale(pair.module, pair.rank)
        view.change(bias, lambda value, before: AddedVector(value, added, scale, each.name))


def _with_rows(
    rows: TensorExpr, index: tuple[int, ...], name: str, value: TensorExpr, before: TensorExpr | None
) -> TensorExpr:
    return ReplacedRows(value, rows, index, name)


def _with_pair(each: ScaledAdapter, pair: LowRankPair, value: TensorExpr, before: TensorExpr | None) -> TensorExpr:
    """A tensor with the change of one pair."""
    a, b = _flat(pair.a), _flat(pair.b)
    magnitude = reshaped(pair.magnitude, (prod(pair.magnitude.shape),)) if pair.magnitude is not None else None
    turned = _is_turned(each.adapter, pair, value.shape)
    if pair.of_embedding and magnitude is None:
        a, b, turned = transposed(b), transposed(a), False

    def seen(x: TensorExpr) -> TensorExpr:
        """The tensor as a matrix with the rows of B and the columns of A; and such a matrix as the tensor."""
        return transposed(x) if turned else x

    matrix = (value.shape[0], prod(value.shape[1:]))
    flat_before = seen(reshaped(before, matrix)) if before is not None and magnitude is not None else None
    scale = each.scale(pair.module, pair.rank)
    merged = Merged(seen(reshaped(value, matrix)), a, b, scale, each.name, flat_before, magnitude)
    return reshaped(seen(merged), value.shape)


def _flat(factor: TensorExpr) -> TensorExpr:
    """A factor as a matrix: those of a convolution have axes for its window."""
    return reshaped(factor, (factor.shape[0], prod(factor.shape[1:])))


def _is_turned(adapter: Adapter, pair: LowRankPair, shape: tuple[int, ...]) -> bool:
    """Whether the base model stores the transpose of what the pair changes."""
    if pair.of_embedding:
        return True
    return adapter.config.is_transposed and len(shape) == 2 and shape == _shape_of(pair, turned=True)


def _shape_of(pair: LowRankPair, *, turned: bool) -> tuple[int, int]:
    rows, columns = pair.b.shape[0], prod(pair.a.shape[1:])
    return (columns, rows) if turned else (rows, columns)


def _form(name: str) -> str:
    """A tensor's name without what differs between classes and versions."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _check_kind(adapter: Adapter) -> None:
    config = adapter.config
    if config.values.get("alora_invocation_tokens") or config.values.get("invocation_string"):
        raise _not_merged(adapter, "a change that begins at an invocation (aLoRA)", "convert the adapter by itself")
    if (beginning := config.begins_from_changed_base) is not None:
        hint = "save it with path_initial_model_for_weight_conversion, which makes an adapter of the original model"
        raise _not_merged(adapter, f"a change of another base, which init_lora_weights={beginning!r:.40} made", hint)


def _not_merged(adapter: Adapter, what: str, hint: str | None = None) -> ForgeError:
    hint = hint or "merge it with PEFT's merge_and_unload, and convert the result"
    return UnsupportedError(f"the adapter holds {what}, which is not merged", file=adapter.config.path, hint=hint)


def _of_another(adapter: Adapter, name: str, its: tuple[int, ...], models: tuple[int, ...]) -> ForgeError:
    if its[1:] == models[1:] and is_of_tokens(name):
        return of_other_tokens(adapter, name, its[0], models[0])
    problem = f"the adapter was made for another model: it changes a tensor of shape {its}, and the model's is {models}"
    return InputError(problem, file=adapter.file.path, tensor=name, hint=_named_base(adapter))


def _named_base(adapter: Adapter) -> str:
    named = adapter.config.base_model
    return "give the model that it was trained on" + (f": {printable(named)}" if named else "")
