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
from gguf_forge.toolbox.choose.kv_cache import buffer_bytes, kv_cache_bytes, own_context
from gguf_forge.toolbox.choose.sampled import sampled_errors

# What each file type is for, in words that fit into a column. The first ones are for any model: these are recommended.
# Their verdicts go by the bits alone. So they never contradict the errors, which differ little between such types.
_FOR_ALL = {
    "Q8_0": "nearly the original",
    "Q6_K": "hard to tell from Q8_0",
    **dict.fromkeys(("Q5_K_M", "Q5_K_S"), "very good"),
    "Q4_K_M": "good: the usual choice",
    "Q4_K_S": "good",
    "IQ4_NL": "good, in blocks of 32",
    "IQ4_XS": "the smallest good one",
    **dict.fromkeys(("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS"), "worse answers"),
    **dict.fromkeys(("Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS"), "poor; large models only"),
    **dict.fromkeys(("IQ2_XXS", "IQ1_M", "IQ1_S"), "poor; very large models only"),
}
_CONTEXT = 4096  # tokens, where nobody says how many
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
        memory: Bytes of the file, of the keys and values, and of llama.cpp's buffers for computing.
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
        if self.file_type.name == "MXFP4_MOE" and "MXFP4" not in self.file.types:
            return "no experts here: it is Q8_0"
        return PURPOSES.get(self.file_type.name, "as it is")

    @property
    def is_for_any_model(self) -> bool:
        """Whether it is made for ordinary models, and to be run."""
        return self.file_type.name in _FOR_ALL

    @property
    def is_possible(self) -> bool:
        """Whether it may be recommended: it is for any model, and can be made as things are."""
        return self.is_for_any_model and not self.needs_imatrix and self.error is not None

    @property
    def requantizes(self) -> bool:
        """Whether it rounds weights that the source holds rounded, which is refused without `--allow-requantize`."""
        pairs = zip(self.file.tensors, self.file.sources, strict=True)
        return any(not source.expr.dtype.is_float and source.expr.dtype != info.type for info, source in pairs)


@dataclass(frozen=True)
class TypeChoices:
    """What can be made of a model.

    Attributes:
        choices: The smallest first.
        context: Tokens of the context.
        longest: Tokens that the model was made for; None if it does not say it.
        cache: Bytes of keys and values for such a context, in F16.
        buffers: Bytes of llama.cpp's buffers for computing.
        fit: Bytes of memory at hand; None if none were named.
    """

    choices: tuple[TypeChoice, ...]
    context: int
    longest: int | None
    cache: int
    buffers: int
    fit: int | None

    @property
    def recommended(self) -> TypeChoice | None:
        """The best type that fits; None if none fits, or no memory was named."""
        return next((choice for choice in self.choices if choice.is_recommended), None)

    @property
    def is_too_long(self) -> bool:
        """Whether the context is longer than the model was made for."""
        return self.longest is not None and self.context > self.longest


def choose_type(
    request: Request,
    *,
    fit: int | None = None,
    context: int | None = None,
    threads: int | None = None,
    progress: Progress = lambda n_values: None,
) -> TypeChoices:
    """Every file type of a model: its size, and the error that it is expected to have in the model's own weights.

    The best one that fits is the one with the least error, of the types for any model that can be made as things are.
    Float types are not recommended: Q8_0 is half as large, and its answers are hard to tell from theirs.

    Args:
        request: The model, and the options that change mixes; its types, or all of them if it names none.
        fit: Bytes of memory that are free for it; None for no recommendation.
        context: Tokens that there has to be room for; None for 4,096, or for all that a model of fewer was made for.
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
        metadata = files[0].metadata
        longest = own_context(metadata)
        tokens = context if context is not None else min(_CONTEXT, longest or _CONTEXT)
        cache, buffers = kv_cache_bytes(metadata, tokens), buffer_bytes(metadata, _vocabulary(files[0]), tokens)
    choices = (
        TypeChoice(
            file=file,
            error=error,
            share=file.size / sixteen,
            needs_imatrix=bool(file.lacking),
            memory=file.size + cache + buffers,
            fits=None if fit is None else file.size + cache + buffers <= fit,
        )
        for file, error in zip(files, errors, strict=True)
    )
    ordered = sorted(choices, key=lambda choice: (choice.file.size, choice.file_type.name))
    return TypeChoices(_with_recommended(ordered), tokens, longest, cache, buffers, fit)


def _vocabulary(file: FilePlan) -> int:
    """How many tokens a model tells apart: the rows of its embeddings."""
    return next((info.shape[-1] for info in file.tensors if info.name == "token_embd.weight"), 0)


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
    possible = (choice for choice in choices if choice.fits and choice.is_possible)
    best = min(possible, key=lambda c: (c.error, c.file.size), default=None)
    return tuple(replace(choice, is_recommended=choice is best) for choice in choices)
