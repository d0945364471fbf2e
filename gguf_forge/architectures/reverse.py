"""The way back: from the tensors of a GGUF file to those of a Hugging Face checkpoint.

A declaration describes only the way from a checkpoint to a GGUF file. So we apply it to stand-ins for the checkpoint's
tensors, which gives an expression for each tensor of the file. Then we undo the operations of this expression, the last
one first, on the tensor that the file has. If several tensors of the file were cut from one, we join them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, pairwise, permutations
from math import isqrt, prod
from pathlib import Path

from gguf_forge.architectures.checkpoint_names import CheckpointNames, names_in_checkpoints
from gguf_forge.architectures.config_of_file import config_of_file
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.key_tensors import tensors_of_keys
from gguf_forge.architectures.metadata import Line
from gguf_forge.architectures.origins import CheckpointTensor, Making, Origins, origins_of
from gguf_forge.architectures.registry import declarations
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.templates import fill, group_names, parse
from gguf_forge.architectures.undone import Undone
from gguf_forge.errors import ForgeError, UnsupportedError, printable
from gguf_forge.gguf_file.values import Metadata, Value
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import StandIn
from gguf_forge.tokenizer import Reader, bpe, sentencepiece, wordpiece, xlm_roberta

# Far above any real model; a hostile file may claim any number.
_MOST_EXPERTS = 100_000
# The longest inner axis that is looked for where two axes were merged: far longer than any head.
_LONGEST_INNER = 1024
_PROJECTOR_TYPES = ("projector_type", "vision.projector_type", "audio.projector_type")
# Reader of vocabularies -> the kind of vocabulary in the file. The other readers take several kinds.
_KINDS: Mapping[Reader, str] = {wordpiece: "bert", bpe: "gpt2", sentencepiece: "llama", xlm_roberta: "t5"}
# Mistral's own form of a checkpoint, whose config is called so.
_NATIVE_FORM = "params.json"
_AS_GGUF = "dequantize to a GGUF file instead"
_ASK_CONFIG = f"give the model's config.json as well, which tells more than the file; or {_AS_GGUF}"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class KnownModel:
    """The model that a file was made of, by its config.json.

    Attributes:
        architecture: Its declaration.
        class_name: The class that the declaration is for.
        site: What the config says.
        outermost: The class that config.json names first; empty if it names none.
    """

    architecture: Architecture
    class_name: str
    site: Site
    outermost: str = ""


@dataclass(frozen=True)
class LedBack:
    """What a GGUF file was made of.

    Attributes:
        tensors: By their Hugging Face names.
        modules: Further files of such a checkpoint -> the prefix that the names of their tensors have here.
    """

    tensors: Mapping[str, TensorExpr]
    modules: Mapping[str, str]

    def by_file(self) -> dict[str | None, dict[str, TensorExpr]]:
        """The tensors under the names that they have in their files: None for the model's own, and each module's."""
        found: dict[str | None, dict[str, TensorExpr]] = {}
        for name, expr in self.tensors.items():
            file = next((file for file, prefix in self.modules.items() if name.startswith(prefix)), None)
            found.setdefault(file, {})[name.removeprefix(self.modules[file]) if file is not None else name] = expr
        return found


def lead_back(metadata: Metadata, tensors: Mapping[str, TensorExpr], model: KnownModel | None = None) -> LedBack:
    """The tensors of the checkpoint that a GGUF file was made of.

    Args:
        metadata: Keys of the file.
        tensors: Its tensors in file order, each as float values.
        model: What config.json says. Without it, the class is the one of the file's architecture that fits the tensors
            best, though several classes may give the same tensors other names.

    Raises:
        UnsupportedError: the architecture, or some of the tensors, cannot be led back; the message names all of them.
        InputError: a tensor's shape does not agree with the keys.

    Example:
        >>> with open_gguf("model-BF16.gguf") as gguf:  # doctest: +SKIP
        ...     found = lead_back(gguf.typed_metadata, {t.name: t.expression() for t in gguf.tensors}).tensors
    """
    models = _models(metadata, tensors) if model is None else [model]
    hint = _ASK_CONFIG if model is None else _AS_GGUF
    ways = [_Way(each, names, tensors, hint) for each in models for names in _names(each)]
    best = min(ways, key=lambda way: way.misfit)
    return LedBack(best.tensors(tensors, metadata), best.modules)


def _names(model: KnownModel) -> Sequence[CheckpointNames]:
    """The names that the model's checkpoint may have."""
    known = names_in_checkpoints(model.class_name, model.architecture.part)
    known = known or tuple(
        n for name in model.architecture.hf for n in names_in_checkpoints(name, model.architecture.part)
    )
    mine = [names for names in known if names.of == model.outermost]
    return mine or known or [CheckpointNames(model.class_name, {})]


def _models(metadata: Metadata, tensors: Mapping[str, TensorExpr]) -> list[KnownModel]:
    """The classes that the file's architecture has: first those of whole models, then those of their bodies."""
    value = metadata.get("general.architecture")
    wanted = value.data if value is not None else None
    found = [each for each in declarations() if each.name == wanted and _is_of_projector(each, metadata)]
    if not found:
        raise UnsupportedError(
            f"the way back to a checkpoint is not known for architecture {printable(str(wanted))}",
            hint=f"it is for {', '.join(dict.fromkeys(architecture.name for architecture in declarations()))}",
        )
    sites = [(each, _site(each, metadata, tuple(tensors))) for each in found]
    models = [KnownModel(each, name, site) for each, site in sites for name in each.hf]
    tokenizer = metadata.get("tokenizer.ggml.model")
    return sorted(models, key=lambda each: (_reads_other_vocabularies(each, tokenizer), _is_body(each.class_name)))


def _reads_other_vocabularies(model: KnownModel, tokenizer: Value | None) -> bool:
    """Whether the file's vocabulary is of a kind that the model's class does not have."""
    kind = _KINDS.get(model.architecture.tokenizer) if model.architecture.tokenizer is not None else None
    return kind is not None and tokenizer is not None and tokenizer.data != kind


def _is_body(class_name: str) -> bool:
    """Whether a class is a model without its head."""
    return class_name.endswith("Model") and not class_name.endswith("HeadModel")


def _is_of_projector(architecture: Architecture, metadata: Metadata) -> bool:
    """Whether a declaration makes projectors of the file's type; True if it is for language models."""
    if architecture.part != "mmproj":
        return True
    site, keys = _site(architecture, metadata, ()), {f"{architecture.name}.{key}" for key in _PROJECTOR_TYPES}
    found = {metadata[key].data for key in keys if key in metadata}
    lines = [line for line in architecture.metadata if isinstance(line, Line) and line.key in _PROJECTOR_TYPES]
    with suppress(ForgeError):  # the config may say which of several types it is
        return {value.data for line in lines for _, value in line(site)} <= found
    return True


def _site(architecture: Architecture, metadata: Metadata, targets: Sequence[str]) -> Site:
    """Where the declaration is applied: what the file tells of the model."""
    config = config_of_file(architecture, metadata)
    layers = max((parse(name).layer or 0 for name in targets), default=0) + 1
    count = config.integer("block_count", minimum=0, default=0) or layers
    return Site(config, LocalFolder(Path()), architecture.part, block_count=count, keys=metadata)


class _Way:
    """The way back to the names of one class."""

    def __init__(
        self, model: KnownModel, names: CheckpointNames, tensors: Mapping[str, TensorExpr], hint: str = ""
    ) -> None:
        self._hint = hint
        self._architecture, self._site = model.architecture, _with_choices(model.site, tensors)
        self._is_native = names.of == _NATIVE_FORM
        self.origins: Origins = origins_of(model.architecture, names, self._site, tensors)

    @property
    def modules(self) -> Mapping[str, str]:
        return self._architecture.modules

    @property
    def misfit(self) -> tuple[int, int, bool, int]:
        """How badly the names fit the file. Hugging Face's names count before Mistral's own."""
        return len(self.origins.unknown), self.origins.guessed, self._is_native, self.origins.unused

    def tensors(self, tensors: Mapping[str, TensorExpr], metadata: Metadata) -> dict[str, TensorExpr]:
        """The checkpoint's tensors.

        Raises:
            UnsupportedError: some of the file's tensors cannot be led back.
        """
        undone, unknown = Undone(), list(self.origins.unknown)
        for making in self.origins.makings:
            missing = [target for target in making.targets if target not in tensors]
            try:
                trees = None if missing else _trees(making, tensors, self._site.at(making.layer))
            except ForgeError as refused:
                name = next(iter(making.targets))
                problem = f"cannot be led back to a checkpoint: {refused.words.problem}"
                hint = _AS_GGUF if isinstance(refused, UnsupportedError) else self._hint
                raise UnsupportedError(problem, tensor=printable(name), hint=hint) from None
            if trees is None:
                unknown += [target for target in making.targets if target in tensors]
            for target, tree in (trees or {}).items():
                undone.add(tree, tensors[target])
        unknown += undone.unfinished()
        if unknown:
            which = f"{len(unknown)} tensors of this {self._architecture.name} model"
            raise UnsupportedError(
                f"{which} cannot be led back to a checkpoint:\n  " + "\n  ".join(group_names(unknown)),
                hint=self._hint,
            )
        found, own = undone.found(), f"{self._architecture.name}."
        lines = (*self._architecture.early, *self._architecture.metadata)
        keys = {key.removeprefix(own): value for key, value in metadata.items()}
        return {**found, **tensors_of_keys(lines, keys, found)}


def _with_choices(site: Site, tensors: Iterable[str]) -> Site:
    """The site of a file that may have only the layers behind the model's own, which predict further tokens."""
    layers = {
        layer for layer in (parse(name).layer for name in tensors if name.startswith("blk.")) if layer is not None
    }
    own = site.config.find("n_layers", "num_hidden_layers", "n_layer", "num_layers")
    is_alone = bool(layers) and isinstance(own, int) and min(layers) >= own > 0
    return replace(site, choices=site.choices | {"mtp_only"}) if is_alone else site


def _trees(making: Making, tensors: Mapping[str, TensorExpr], site: Site) -> Mapping[str, TensorExpr] | None:
    """Target -> the expression that its operation makes of stand-ins; None if no shapes of the origins fit."""
    shapes = [tensors[target].shape for target in making.targets]
    if not all(map(prod, shapes)):
        return None
    error: ForgeError | None = None
    for parts in _parts(making, shapes, site):
        for shape in _shapes(shapes, len(parts), making.origins):
            try:
                made = _made(making, parts, shape, site)
                if len(made) == 1 and [tree.shape for tree in made] != shapes:
                    made = _made(making, parts, _with_other_sizes(shape, made[0].shape, shapes[0]), site)
            except ForgeError as refused:
                error = error or refused
                continue
            if [tree.shape for tree in made] == shapes:
                return dict(zip(making.targets, made, strict=True))
    if error is not None and len(making.targets) == 1:
        raise error
    return None


def _made(making: Making, parts: Sequence[CheckpointTensor], shape: Shape, site: Site) -> list[TensorExpr]:
    """What the operations make of stand-ins, the first of which has a shape."""
    stand_ins = [StandIn(part.name, _of_other(shape, part.patterns)) for part in parts]
    return [operation(site, *stand_ins) for operation in making.targets.values()]


def _of_other(shape: Shape, patterns: tuple[str, ...]) -> Shape:
    """The shape of a tensor that has its own patterns, beside one of `shape`: the same values along other axes, or a
    value for each index of the outer axes."""
    if not patterns or len(shape) in map(len, patterns):
        return shape
    if len(patterns[0]) < len(shape):
        return shape[: len(patterns[0])]
    return next(_of_pattern(shape, patterns[0]), shape)


def _with_other_sizes(shape: Shape, made: Shape, wanted: Shape) -> Shape:
    """A shape with as many more indices as the operation took off, or fewer as it added; the same one if the axes that
    are longer than 1 are not those of the result."""
    places = range(len(shape)) if len(shape) == len(made) else [at for at, size in enumerate(shape) if size != 1]
    if not len(places) == len(made) == len(wanted):
        return shape
    other = list(shape)
    for at, got, want in zip(places, made, wanted, strict=True):
        other[at] = max(1, shape[at] + want - got)
    return tuple(other)


def _parts(making: Making, shapes: Sequence[Shape], site: Site) -> Iterator[tuple[CheckpointTensor, ...]]:
    """The tensors that the targets were made of. How many experts there are, the targets' shapes tell."""
    if not any("{e}" in origin.name for origin in making.origins):
        yield making.origins
        return
    for count in dict.fromkeys(shape[0] for shape in shapes) if making.count is None else (making.count(site),):
        if count <= _MOST_EXPERTS:
            yield tuple(
                replace(origin, name=fill(origin.name, expert=expert))
                for origin in making.origins
                for expert in (range(count) if "{e}" in origin.name else (None,))
            )


def _shapes(targets: Sequence[Shape], n_parts: int, origins: Sequence[CheckpointTensor]) -> Iterator[Shape]:
    """Possible shapes of the parts that targets were made of, if these have equal shapes."""
    found, patterns = dict.fromkeys(_likely_shapes(targets, n_parts, n_parts // len(origins))), origins[0].patterns
    if not patterns:
        yield from found
    for pattern in patterns:
        yield from dict.fromkeys(shape for each in found for shape in _of_pattern(each, pattern))
        yield from (shape for shape in found if len(shape) == len(pattern))
        yield from (shape for each in found for shape in _cut_in_two(each, pattern))


def _likely_shapes(targets: Sequence[Shape], n_parts: int, n_experts: int) -> Iterator[Shape]:
    first, total = targets[0], sum(map(prod, targets))
    if n_parts > 1:  # stacked, one behind the other, or of the same shape
        yield first
        if len(first) > 1 and first[0] in (n_parts, n_experts):
            yield first[1:]
        yield from (_with(first, at, size // n_parts) for at, size in enumerate(first) if size % n_parts == 0)
    elif len(targets) == 1:
        yield first
        yield from (shape for shape in permutations(first) if len(first) <= 4)
        yield from (_with(first, at, 2 * size) for at, size in enumerate(first))  # two parts that were added
    elif len(set(targets)) == 1:  # cut into equal parts
        yield from (_with(first, at, size * len(targets)) for at, size in enumerate(first))
        yield from ((*first[:at], len(targets), *first[at:]) for at in range(len(first) + 1))
        yield from permutations(first) if len(first) <= 4 else (first,)  # or copied
    sizes = dict.fromkeys(size * times for shape in targets for size in shape for times in (1, len(targets)))
    for lead in ((), *((shape[0],) for shape in targets)):
        for size in sizes:
            rest, left_over = divmod(total // n_parts, prod(lead) * size)
            if not left_over:
                yield (*lead, rest, size)
    yield from targets  # some are made of the config alone


def _with(shape: Shape, at: int, size: int) -> Shape:
    return (*shape[:at], size, *shape[at + 1 :])


def _of_pattern(shape: Shape, pattern: str) -> Iterator[Shape]:
    """The shapes of a pattern that have the same values in the same order, without cutting an axis."""
    sizes, wanted = [size for size in shape if size != 1], pattern.count("n")
    cuts = list(combinations(range(1, len(sizes)), wanted - 1)) if 0 < wanted <= len(sizes) else []
    # The kernels of a convolution make one row, and of experts or heads the rows are put together.
    for cut in cuts if len(sizes) > 3 else reversed(cuts):
        merged = iter(prod(sizes[start:stop]) for start, stop in pairwise((0, *cut, len(sizes))))
        yield tuple(next(merged) if axis == "n" else 1 for axis in pattern)
    for at, size in enumerate(sizes if "1" not in pattern and wanted == len(sizes) + 1 else ()):
        if isqrt(size) ** 2 == size:  # the places of a square picture
            yield (*sizes[:at], isqrt(size), isqrt(size), *sizes[at + 1 :])
    if not wanted and not sizes:
        yield (1,) * len(pattern)


def _cut_in_two(shape: Shape, pattern: str) -> Iterator[Shape]:
    """The shapes of a pattern with one axis more, which the operation merges with the axis before it."""
    sizes = [size for size in shape if size != 1]
    if pattern != "n" * (len(sizes) + 1):
        return
    for at, size in enumerate(sizes):
        yield from ((*sizes[:at], size // inner, inner, *sizes[at + 1 :]) for inner in _divisors(size))


@lru_cache
def _divisors(size: int) -> tuple[int, ...]:
    return tuple(inner for inner in range(1, min(size, _LONGEST_INNER) + 1) if size % inner == 0)
