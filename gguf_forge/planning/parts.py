"""The parts of a model that become files of their own, several of them in one run (`--parts`).

A run for several parts consists of a request for each, which is what the part's own option asks for (`--mmproj`,
`--mtp`, `--no-mtp`, `--dspark`). So the files are the same, and only their weights are read together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gguf_forge.architectures.mapping import renamed
from gguf_forge.architectures.parts import belongs_to
from gguf_forge.architectures.registry import declarations_of
from gguf_forge.architectures.templates import parse
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.engine.fingerprint import expression_digest
from gguf_forge.errors import UsageError, printable
from gguf_forge.option import parse_names, parse_types
from gguf_forge.planning.model import OpenModel
from gguf_forge.planning.model_plan import ModelPlan, has_draft_of_its_own, has_projector, survey
from gguf_forge.planning.splits import Split
from gguf_forge.recipe import FileType, Options, names_of_types
from gguf_forge.request import Request
from gguf_forge.tensors.expression import TensorExpr

MAIN = "main"
_ALL = "all"
AN_ADAPTER = "an adapter"
# The parts that llama.cpp loads as models, which follow the options of the mix and of the split.
_MODELS = (MAIN, "mtp", "dspark")
# The fields of a request that ask for one part -> their options.
_ALONE = {"mmproj": "--mmproj", "mtp": "--mtp", "dspark": "--dspark"}
# The fields that only the language model has a use for -> their options.
_OF_MAIN = {
    "sentence_transformers_dense_modules": "--sentence-transformers-dense-modules",
    "disable_mistral_community_chat_template": "--disable-mistral-community-chat-template",
}
_OF_MODELS = ("fuse_qkv", "fuse_gate_up_exps")


@dataclass(frozen=True)
class PartRequest:
    """What is asked of one part of a model.

    Attributes:
        name: Of the part.
        request: The request for this part alone.
        mix: The options that change the mixes of its file types.
        split: Whether and how its files are split.
    """

    name: str
    request: Request
    mix: Options
    split: Split

    @property
    def prefix(self) -> str:
        """The beginning of the names of its files, beside those of other parts."""
        return "" if self.name == MAIN else f"{self.name}-"

    def options(self, file_type: FileType) -> Options:
        """The options for a file type. Those of the mix are main's: other parts in float types do without them."""
        is_without = self.name not in _MODELS or (self.name != MAIN and file_type.is_float)
        mix = Options(as_reference=self.mix.as_reference) if is_without else self.mix
        requantize = self.mix.allow_requantize and not (is_without and file_type.is_float)
        return replace(mix, file_type=file_type, allow_requantize=requantize)


def parts_of(checkpoint: Checkpoint, asked: Sequence[str] = (_ALL,)) -> Mapping[str, str]:
    """The parts that a checkpoint holds, in order, and what each is.

    Args:
        checkpoint: The checkpoint.
        asked: Those that are of interest. Drafts and adapters, which need the config of the language model, may be left
            out if they are not.

    Raises:
        ForgeError: the config names no architecture, or contradicts itself.
    """
    found: dict[str, str] = {}
    if declarations_of(checkpoint.config, "text"):
        found[MAIN] = "the model itself"
    if has_projector(checkpoint):
        found["mmproj"] = "encoders of pictures or sound"
    is_enough = found.keys() >= set(asked)
    return found if is_enough or MAIN not in found else {**found, **_beside_main(checkpoint)}


def _beside_main(checkpoint: Checkpoint) -> Mapping[str, str]:
    """The drafts and the adapters that a checkpoint holds."""
    architecture, site = survey(checkpoint, weights=False)
    found: dict[str, str] = {}
    if has_draft_of_its_own(checkpoint):
        found["dspark"] = "a DSpark draft"
    elif "mtp_only" in architecture.choices:
        names = (renamed(architecture, name, site) for name in checkpoint.tensors if belongs_to(architecture, name))
        if any(_layer(name) >= site.config.block_count for name in names):
            found["mtp"] = "layers that predict further tokens"
    adapters = architecture.adapters(site) if architecture.adapters is not None else {}
    return {**found, **{prefix.removesuffix("-"): AN_ADAPTER for prefix in adapters}}


def _layer(name: str) -> int:
    """The layer in a checkpoint's name; -1 if it has none."""
    template, layer, _ = parse(name)
    return layer if layer is not None and "layers.{i}" in template else -1


def alone(name: str, request: Request) -> Request:
    """The request for one part of a model, as the part's own option asks for it. An adapter has no such option."""
    of_part: dict[str, Any] = {"parts": (), "no_mtp": False, **dict.fromkeys(_ALONE, False)}
    if name == "dspark":
        of_part["target_model_dir"] = request.target_model_dir or request.source
    if name in _ALONE:
        of_part |= {name: True, **dict.fromkeys(_OF_MAIN, False)}
        of_part |= dict.fromkeys(_OF_MODELS, False) if name not in _MODELS else {}
    elif name == MAIN:
        of_part["no_mtp"] = request.no_mtp
    else:
        of_part["parts"] = (name,)
    return replace(request, **of_part)


def part_requests(request: Request, options: Options, split: Split, held: Mapping[str, str]) -> tuple[PartRequest, ...]:
    """What is asked of each part.

    Args:
        request: What is asked for.
        options: The options that change the mixes of the file types.
        split: Whether and how the files are split.
        held: The parts that the model has.

    Raises:
        UsageError: a part that the model does not have, options that exclude each other, or types for other parts.
    """
    if not request.parts:
        name = next((field for field in _ALONE if getattr(request, field)), MAIN)
        return (PartRequest(name, request, options, split),)
    names = _names(request, held)
    drafts = {"mtp", "dspark"} & set(names)
    types = _types(request, names)

    def asked(name: str) -> PartRequest:
        usual = types.get(MAIN, ()) if name in _MODELS else ("auto",) if name in _ALONE else ("F32",)
        mine = alone(name, replace(request, types=types.get(name, usual)))
        mine = replace(mine, no_mtp=mine.no_mtp or bool(drafts)) if name == MAIN else mine
        return PartRequest(name, mine, options, split if name in _MODELS else Split())

    return tuple(map(asked, names))


def _names(request: Request, held: Mapping[str, str]) -> tuple[str, ...]:
    """The parts that are asked for, in order."""
    flags = [flag for field, flag in _ALONE.items() if getattr(request, field)]
    if request.vocab_only:
        flags.append("--vocab-only")
    if flags:
        raise UsageError(f"--parts and {', '.join(flags)} exclude each other", hint="leave one of them out")
    given = parse_names(request.parts)
    names = [name for name in held if not (request.no_mtp and name == "mtp")] if _ALL in given else given
    unknown = [name for name in given if name not in (*held, _ALL)]
    if unknown or not names:
        raise UsageError(
            f"the model has no part {printable(unknown[0])}" if unknown else "--parts names no part",
            file=request.source,
            hint=f"it has {', '.join(map(printable, held))}",
        )
    if request.no_mtp and "mtp" in names:
        raise UsageError("--no-mtp and the part mtp exclude each other", hint="leave one of them out")
    of_main = [flag for field, flag in _OF_MAIN.items() if getattr(request, field)]
    if of_main and MAIN not in names:
        raise UsageError(f"{', '.join(of_main)}: no effect on parts other than main", hint="leave it out, or add main")
    return tuple(name for name in held if name in names)


def _types(request: Request, names: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """The types of each part that has types of its own."""
    found = types_by_part(request.types)
    bare = found.pop("", ())
    if bare:
        if MAIN not in names and len(names) > 1:
            raise UsageError(
                f"{', '.join(bare)}: which of the parts {', '.join(names)} is that for?",
                hint=f"name it, for example -t {names[0]}:{bare[0]}",
            )
        first = MAIN if MAIN in names else names[0]
        found[first] = (*bare, *found.get(first, ()))
    others = [name for name in found if name not in names]
    if others:
        raise UsageError(
            f"there are types for the part {printable(others[0])}, which is not made",
            hint=f"the parts that are made are {', '.join(names)}",
        )
    return found


def types_by_part(types: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Types by the parts that they name; those that name none by an empty text.

    Example:
        >>> types_by_part(["Q4_K_M", "mmproj:BF16"])
        {'': ('Q4_K_M',), 'mmproj': ('BF16',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in parse_types(tuple(types)):
        before, colon, after = name.partition(":")
        part, file_type = (before, after) if colon else ("", name)
        found[part] = (*found.get(part, ()), file_type)
    return found


def for_part_of(metadata: Mapping[str, Any], names: Collection[str], model: OpenModel, request: Request) -> Request:
    """The request for that part of a model which a file is. A request for some part stays as it is.

    Args:
        metadata: The file's keys.
        names: Of its tensors.
        model: What the file was made of.
        request: What is said of how it was made.
    """
    if request.parts or request.no_mtp or any(getattr(request, field) for field in _ALONE):
        return request
    held = model.parts()
    if list(held) in ([], [MAIN]):
        return request
    kind = metadata.get("general.type")
    adapter = f"lora-{metadata.get('adapter.lora.task_name')}"
    named = "mmproj" if kind == "mmproj" else adapter if kind == "adapter" else None
    if named is not None:
        return alone(named, request) if named in held else request
    models = [alone(name, request) for name in held if name in _MODELS]
    if len(models) < 2:
        return request
    candidates = [*models, replace(models[0], no_mtp="mtp" in held)]
    return min(candidates, key=lambda each: len(model.tensors(each).keys() ^ set(names)))


def with_named_types(request: Request, *, with_imatrix: bool) -> Request:
    """The request with patterns of types replaced by the types that they stand for.

    Raises:
        UsageError: no type has such a name; a type names a part, and no parts are asked for.
    """
    found = types_by_part(request.types)
    if not request.parts and found.keys() - {""}:
        part = next(part for part in found if part)
        raise UsageError(
            f"there are types for the part {printable(part)}, and no parts are asked for",
            hint=f"add --parts all, or --parts {printable(part)}",
        )
    named = (
        (part, names_of_types(names, with_imatrix=with_imatrix and part in ("", *_MODELS)))
        for part, names in found.items()
    )
    return replace(request, types=tuple(f"{part}:{name}" if part else name for part, some in named for name in some))


def shared(plans: Sequence[ModelPlan]) -> Iterator[ModelPlan]:
    """The plans with one object for each expression that several of them have, so that its rows are read once."""
    known: dict[str, TensorExpr] = {}
    for plan in plans:
        tensors = (
            replace(tensor, expr=known.setdefault(expression_digest(tensor.expr), tensor.expr))
            for tensor in plan.tensors
        )
        yield replace(plan, tensors=tuple(tensors)) if len(plans) > 1 else plan
