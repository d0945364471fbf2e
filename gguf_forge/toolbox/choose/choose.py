"""All file types of a model side by side, and the one that is best for the memory at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from gguf_forge.engine.threads import Progress
from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.planning.file_plan import FilePlan
from gguf_forge.planning.making import RequestPlan, planning
from gguf_forge.recipe import FileType, names_of_types
from gguf_forge.request import Request
from gguf_forge.toolbox.choose.kv_cache import kv_cache_bytes
from gguf_forge.toolbox.choose.sampled import sampled_errors

# What each file type is for, in words that fit into a column. The first ones are for any model: these are recommended.
_FOR_ALL = {
    "Q8_0": "nearly the original",
    "Q6_K": "hard to tell from Q8_0",
    "Q5_K_M": "very good",
    "Q5_K_S": "very good",
    "Q4_K_M": "good: the usual choice",
    "Q4_K_S": "good",
    "IQ4_NL": "good, in blocks of 32",
    "IQ4_XS": "the smallest good one",
    "Q3_K_L": "worse answers",
    "Q3_K_M": "worse answers",
    "Q3_K_S": "much worse answers",
    "IQ3_M": "worse answers",
    "IQ3_S": "worse answers",
    "IQ3_XS": "much worse answers",
    "IQ3_XXS": "much worse answers",
    "Q2_K": "poor; large models only",
    "Q2_K_S": "poor; large models only",
    "IQ2_M": "poor; large models only",
    "IQ2_S": "poor; large models only",
    "IQ2_XS": "poor; large models only",
    "IQ2_XXS": "poor; very large models only",
    "IQ1_M": "poor; very large models only",
    "IQ1_S": "poor; very large models only",
}
PURPOSES = {
    **_FOR_ALL,
    "F32": "twice 16 bits, for computing",
    "F16": "to be quantized later",
    "BF16": "to be quantized later",
    "Q5_1": "older: Q5_K_M is better",
    "Q5_0": "older: Q5_K_S is better",
    "Q4_1": "older: Q4_K_M is better",
    "Q4_0": "older, fast on some devices",
    "MXFP4_MOE": "experts trained in MXFP4",
    "TQ2_0": "models trained in 3 levels",
    "TQ1_0": "models trained in 3 levels",
    "Q2_0": "models trained in 4 levels",
    "Q1_0": "models trained in 2 levels",
}


@dataclass(frozen=True)
class TypeChoice:
    """A file type, and what it means for a model.

    Attributes:
        file: What would be written.
        error: The expected error, as a share of the weights; None if only an importance matrix makes the type possible.
        share: Its size as a share of the F16 file's.
        needs_imatrix: Whether it is refused as things are, for want of an importance matrix.
        memory: Bytes of the file and of the keys and values.
        fits: Whether that is within the memory at hand; None if none was named.
        is_recommended: Whether it is the best one that fits.
    """

    file: FilePlan
    error: float | None
    share: float
    needs_imatrix: bool
    memory: int
    fits: bool | None = None
    is_recommended: bool = False

    @property
    def file_type(self) -> FileType:
        return self.file.file_type

    @property
    def purpose(self) -> str:
        """What it is for, in a few words."""
        return PURPOSES.get(self.file_type.name, "as it is")

    @property
    def is_for_any_model(self) -> bool:
        """Whether it may be recommended: it is made for ordinary models, and can be made as things are."""
        return self.file_type.name in _FOR_ALL and not self.needs_imatrix and self.error is not None


@dataclass(frozen=True)
class TypeChoices:
    """What can be made of a model.

    Attributes:
        choices: The smallest first.
        context: Tokens of the context.
        cache: Bytes of keys and values for such a context, in F16.
        fit: Bytes of memory at hand; None if none were named.
    """

    choices: tuple[TypeChoice, ...]
    context: int
    cache: int
    fit: int | None

    @property
    def recommended(self) -> TypeChoice | None:
        """The best type that fits; None if none fits, or no memory was named."""
        return next((choice for choice in self.choices if choice.is_recommended), None)


def choose_type(
    request: Request,
    *,
    fit: int | None = None,
    context: int = 4096,
    threads: int | None = None,
    progress: Progress = lambda n_values: None,
) -> TypeChoices:
    """Every file type of a model: its size, and the error that it is expected to have in the model's own weights.

    The best one that fits is the one with the least error, of the types for any model that can be made as things are.
    Float types are not recommended: Q8_0 is half as large, and its answers are hard to tell from theirs.

    Args:
        request: The model, and the options that change mixes; its types, or all of them if it names none.
        fit: Bytes of memory at hand; None for no recommendation.
        context: Tokens that there has to be room for.
        threads: Defaults to the processors this process may use.
        progress: Is told how many values of tensors were read.

    Raises:
        ForgeError: what was wrong, where, and what to do.

    Example:
        >>> choose_type(Request(source="Qwen3-0.6B"), fit=8 << 30).recommended  # doctest: +SKIP
    """
    with planning(replace(request, out=None), only_planned=True) as plan:
        by_type: dict[str, FilePlan] = {}
        for file in _possible(plan, names_of_types(request.types or ("all",), with_imatrix=True)):
            by_type.setdefault(file.file_type.name, file)
        files = tuple(by_type.values())
        sixteen = plan(("F16",)).files[0].size
        errors = sampled_errors(files, threads=threads, progress=progress)
        cache = kv_cache_bytes(files[0].metadata, context)
    choices = (
        TypeChoice(
            file=file,
            error=error,
            share=file.size / sixteen,
            needs_imatrix=bool(file.lacking),
            memory=file.size + cache,
            fits=None if fit is None else file.size + cache <= fit,
        )
        for file, error in zip(files, errors, strict=True)
    )
    ordered = sorted(choices, key=lambda choice: (choice.file.size, choice.file_type.name))
    return TypeChoices(_with_recommended(ordered), context, cache, fit)


def _possible(plan: Callable[[Sequence[str]], RequestPlan], names: tuple[str, ...]) -> Iterable[FilePlan]:
    """The files of the types that the model can have. If some have no blocks for its rows, each is tried by itself."""
    try:
        return plan(names).files
    except (UnsupportedError, UsageError):
        if len(names) == 1:
            raise
    found: dict[Path, FilePlan] = {}  # several types may be one file, where a checkpoint keeps its blocks
    for name in names:
        with suppress(UnsupportedError, UsageError):
            (file, *_) = plan((name,)).files
            found.setdefault(file.path, file)
    return found.values() or plan(names[:1]).files


def _with_recommended(choices: list[TypeChoice]) -> tuple[TypeChoice, ...]:
    possible = (choice for choice in choices if choice.fits and choice.is_for_any_model)
    best = min(possible, key=lambda c: (c.error, c.file.size), default=None)
    return tuple(replace(choice, is_recommended=choice is best) for choice in choices)
