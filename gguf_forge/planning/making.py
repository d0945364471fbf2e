"""The main functions: they turn a request into plans or into files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from gguf_forge.checkpoint.other_folders import cached_config
from gguf_forge.errors import UsageError
from gguf_forge.file_choices import RecipeChoices, SplitChoices
from gguf_forge.option import parse_memory
from gguf_forge.planning.file_plan import FilePlan, WrittenFile, make_files
from gguf_forge.planning.model import TensorSource
from gguf_forge.planning.model_plan import files_of_the_model
from gguf_forge.planning.notebook import FileTable
from gguf_forge.planning.open_model import open_model
from gguf_forge.planning.parts import with_named_types
from gguf_forge.planning.splits import Split, split_of
from gguf_forge.recipe import Options
from gguf_forge.recipe.requested import options_of
from gguf_forge.request import Request, refuse_unknown
from gguf_forge.run_settings import Observer, RunSettings
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.memory import memory_bound
from gguf_forge.storage.paths import is_folder
from gguf_forge.storage.profile import PLAN, Profile, measured, phase

# The names of plans of jobs and of lists of sums.
_OWN = re.compile(r"plan[^/]*\.json|[^/]*sums?[^/]*\.txt", re.IGNORECASE)


class RequestPlan(NamedTuple):
    """The plans of a request, valid while its source is open.

    Attributes:
        files: What is to be written.
        inputs: The files that hold the tensors.
    """

    files: tuple[FilePlan, ...]
    inputs: tuple[TensorSource, ...]


def files_of_sources(*sources: str | PathLike[str] | None) -> tuple[Path, ...]:
    """The files that no output may replace: the sources that are files, and of folders all that can belong to a model.

    Args:
        sources: Paths, or adapters with a factor after a colon. None is passed over.
    """
    found: list[Path] = []
    for path in (Path(source) for source in sources if source is not None):
        folder = path if is_folder(path) else path.with_name(path.name.rpartition(":")[0] or path.name)
        found += files_of_the_model(LocalFolder(folder)) if is_folder(folder) else [path]
    return without_own(found)


def without_own(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The files that are a model's. Plans of jobs and lists of sums may lie beside them, and may be replaced."""
    return tuple(path for path in paths if not _OWN.fullmatch(path.name))


@contextmanager
def planned(
    request: Request, options: Options | None = None, folder: Path = Path(), *, only_planned: bool = False
) -> Iterator[RequestPlan]:
    """Plans the files of a request. Reads no weight. Arguments as for `planning`.

    Raises:
        ForgeError: what was wrong, where, and what to do.
    """
    with planning(request, options, folder, only_planned=only_planned) as plan:
        yield plan(request.types)


@contextmanager
def planning(
    request: Request, options: Options | None = None, folder: Path = Path(), *, only_planned: bool = False
) -> Iterator[Callable[[Sequence[str]], RequestPlan]]:
    """Opens the source of a request, and gives the function that plans its files for any types. Reads no weight.

    Args:
        request: What to make.
        options: The options that change the mixes; None for those of the request.
        folder: Where relative paths of the request begin.
        only_planned: As for `OpenModel.files`.

    Raises:
        ForgeError: what was wrong, where, and what to do.
    """
    options = options_of(request, folder) if options is None else _also_as_reference(options, request)
    named = partial(with_named_types, with_imatrix=options.has_imatrix or only_planned)
    named(request)  # what is wrong with its types is told before anything is opened
    base = folder / request.base_model if request.base_model is not None else None
    if request.base_model_id is not None:
        base = cached_config(request.base_model_id)
    source = folder / request.source
    with open_model(
        source,
        vocab_only=request.vocab_only,
        base=base,
        mistral_format=request.mistral_format,
        drop_tensor=request.drop_tensor,
        # what names no folder stays as it is, so that it does not become the current one
        lora=[os.fspath(folder / each) if each.partition(":")[0] else each for each in request.lora],
        partial=request.partial,
    ) as model:

        def plan(types: Sequence[str]) -> RequestPlan:
            asked, split = named(replace(request, types=tuple(types))), split_of(request)
            return RequestPlan(model.files(asked, options, split, folder, only_planned=only_planned), model.sources)

        yield plan


def _also_as_reference(options: Options, request: Request) -> Options:
    return replace(options, as_reference=options.as_reference or request.as_reference)


def make(request: Request, run: RunSettings, options: Options | None = None) -> FileTable[WrittenFile]:
    """Makes the files of a request: plans them, checks for errors, writes them. Arguments as for `planned`."""
    with (
        memory_bound(run.max_memory),
        measured(run.profile, "main"),
        phase(PLAN),
        planned(request, options) as found,
    ):
        return make_files(found.files, run)


def convert(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    types: str | Sequence[str] | None = None,
    options: Options | None = None,
    split: Split | None = None,
    threads: int | None = None,
    backend: str | None = None,
    overwrite: bool = False,
    max_memory: int | str | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    profile: Profile | None = None,
    **more: Any,
) -> FileTable[WrittenFile]:
    """Converts a checkpoint, one output for each of `types`, all from one reading of its weights.

    Args:
        source: A Hugging Face folder; or a GGUF file, as for `quantize_gguf`.
        out: A file, a folder, a name with `{ftype}` in it, or None for the usual name in the current folder.
        types: llama.cpp file types, in any case. None for Q4_K_M; for `auto` where the checkpoint is quantized itself.
        options: What deviates from the types' mixes; its own file type is replaced by each of `types`.
        split: Whether and how each file is split; None for one file.
        threads, backend, overwrite, max_memory, resume, observer, profile: How it is run; see `RunSettings`.
            `max_memory` may also be a text such as "300M", in which M is 2^20.
            `observer=gguf_forge.ProgressBar()` shows a bar.
        more: Any other field of `Request`, such as `mmproj=True`, `parts="all"` or `pre_tokenizer="qwen2"`.

    Raises:
        TypeError: there is no such keyword.
        ForgeError: what was wrong, where, and what to do; nothing is left under the final names.

    Example:
        >>> convert("Qwen3-0.6B", types=["Q4_K_M", "Q8_0"])  # doctest: +SKIP
        >>> convert("gemma-3-4b-it", "models", types=["Q4_K_M", "mmproj:BF16"], parts="all")  # doctest: +SKIP
        >>> convert("Qwen3-0.6B", lora=["my-adapter", "another:0.5"])  # doctest: +SKIP
        >>> convert("my-adapter", types="F16", base_model="Qwen3-0.6B")  # doctest: +SKIP
    """
    request = _request(convert, source, out, types, split, options, **more)
    run = RunSettings(
        threads=threads,
        backend=backend,
        overwrite=overwrite,
        max_memory=parse_memory(max_memory),
        resume=resume,
        observer=observer,
        profile=profile,
    )
    return make(request, run, options)


def plan(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    types: str | Sequence[str] | None = None,
    options: Options | None = None,
    split: Split | None = None,
    **more: Any,
) -> FileTable[FilePlan]:
    """What `convert` would write with the same arguments: every tensor, type, size and offset. Reads no weight.

    Raises:
        ForgeError: what was wrong, where, and what to do.

    Example:
        >>> [file.size for file in plan("Qwen3-0.6B", types="Q4_K_M")]  # doctest: +SKIP
    """
    request = _request(plan, source, out, types, split, options, **more)
    with planned(request, options) as found:
        return FileTable(found.files)


def quantize_gguf(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    types: str | Sequence[str],
    options: Options | None = None,
    split: Split | None = None,
    threads: int | None = None,
    backend: str | None = None,
    overwrite: bool = False,
    max_memory: int | str | None = None,
    resume: bool = False,
    buffer: int | None = None,
    observer: Observer | None = None,
    profile: Profile | None = None,
    **more: Any,
) -> FileTable[WrittenFile]:
    """Quantizes a GGUF file, one output for each of `types`: the file that llama-quantize makes, byte for byte.

    Args:
        source: The file, or the first one of a split.
        out: A file, a name with `{ftype}` in it, or a folder, where the file has the source's name with the new type;
            None for ggml-model-TYPE.gguf next to the source, as llama-quantize names it.
        types: llama.cpp file types, in any case, or their numbers; COPY keeps all types.
        options: What deviates from the types' mixes; its own file type is replaced by each of `types`.
        split: Whether and how the output is split; None for one file.
        threads, backend, overwrite, max_memory, resume, buffer, observer, profile: How it is run; see `RunSettings`.
            `max_memory` may also be a text such as "300M", in which M is 2^20.
        more: Any other field of `Request` for GGUF files, such as `strict=True` or `allow_requantize=True`.

    Raises:
        TypeError: there is no such keyword.
        ForgeError: what was wrong, where, and what to do; nothing is left under the final names.

    Example:
        >>> quantize_gguf("Qwen3-0.6B-BF16.gguf", types="Q4_K_M")  # doctest: +SKIP
    """
    request = _request(quantize_gguf, source, out, types, split, options, **more)
    run = RunSettings(
        threads=threads,
        backend=backend,
        overwrite=overwrite,
        max_memory=parse_memory(max_memory),
        resume=resume,
        buffer=buffer,
        observer=observer,
        profile=profile,
    )
    return make(request, run, options)


def refuse_two_mixes(options: Options | None, fields_given: Iterable[str]) -> None:
    """Raises UsageError if the mix of types is given both by `options` and by fields of `Request`."""
    mix = sorted({field.name for field in fields(RecipeChoices)} & set(fields_given))
    if options is not None and mix:
        raise UsageError(f"both options and {', '.join(mix)} are given", hint="leave one of them out")


def _request(
    function: Callable[..., Any],
    source: str | PathLike[str],
    out: str | PathLike[str] | None,
    types: str | Sequence[str] | None,
    split: Split | None,
    options: Options | None,
    **more: Any,
) -> Request:
    """The request for the arguments of a public function. It accepts paths, and one type or several.

    Raises:
        TypeError: the function has no such keyword.
        UsageError: the mix is said twice, by `options` and by fields of `Request`.
    """
    refuse_unknown(function, more)
    refuse_two_mixes(options, more)
    if split is not None and (twice := sorted({field.name for field in fields(SplitChoices)} & set(more))):
        raise UsageError(f"both split and {', '.join(twice)} are given", hint="leave one of them out")
    how = split or Split()
    given: dict[str, Any] = {
        "split_max_size": str(how.max_size) if how.max_size is not None else None,
        "split_max_tensors": how.max_tensors,
        "no_tensor_first_split": how.no_tensor_first,
        "keep_split": how.keep,
        "partial": how.partial,
    }
    return Request(**{"source": source, "out": out, "types": types, **given, **more})
