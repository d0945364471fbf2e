"""`gguf-forge quantize`: a GGUF file becomes GGUF files of other types, as llama-quantize makes them."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from gguf_forge.cli.options import (
    OUTPUT,
    RUNNING,
    AllowRequantize,
    KernelOptions,
    MessageOptions,
    MixOptions,
    WritingOptions,
    add_command,
    flag,
    type_names,
    value,
)
from gguf_forge.cli.streams import console, logging_to
from gguf_forge.errors import ForgeError, UsageError
from gguf_forge.request import memory_bound, recipe_options, split_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest(WritingOptions, MixOptions, KernelOptions, MessageOptions):
    """The command line of `quantize`."""

    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="IN.gguf [OUT.gguf] TYPE [NTHREADS]",
            show_default=False,
            help="The file, or the first one of a split; the output, by default ggml-model-TYPE.gguf beside it; "
            "the file type by name or number, in any case, COPY to keep all types, several with commas.",
        ),
    ]
    output_dir: Annotated[
        Path | None,
        value("--output-dir", metavar="DIR", panel=OUTPUT, help="The folder of ggml-model-TYPE.gguf."),
    ] = None
    keep_split: Annotated[bool, flag("--keep-split", panel=OUTPUT, help="Split the output as the input is.")] = False
    allow_requantize: AllowRequantize = False
    max_buffer_size: Annotated[
        int | None,
        value(
            "--max-buffer-size",
            metavar="MiB",
            panel=RUNNING,
            help="Memory for the rows in work, of what --max-memory allows.",
            min=1,
        ),
    ] = None


class Arguments(NamedTuple):
    """The arguments of llama-quantize, told apart."""

    source: str
    out: str | None
    types: list[str]
    threads: int | None


def register(app: typer.Typer) -> None:
    add_command(app, "quantize", QuantizeRequest, quantize)


def quantize(request: QuantizeRequest) -> None:
    """Quantize a GGUF file: the arguments of llama-quantize, and its bytes.

    Examples:

    - `gguf-forge quantize model-BF16.gguf Q4_K_M`
    - `gguf-forge quantize model-BF16.gguf model-Q4_K_M.gguf q4_k_m 8`
    - `gguf-forge quantize model-BF16.gguf Q4_K_M,Q8_0 --output-dir quantized`
    - `gguf-forge quantize model-BF16-00001-of-00004.gguf out.gguf Q6_K --keep-split`
    - `gguf-forge quantize --dry-run --tensor-type 'ffn_down=q6_k' model-BF16.gguf Q4_K_M --json`
    """
    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.results import show_results
    from gguf_forge.planning import from_gguf
    from gguf_forge.storage.profile import Profile

    given = read_arguments(request.arguments)
    if request.dry_run:
        _show_plan(request, given)
        return
    profile = Profile() if request.profile else None
    with observing(quiet=request.quiet, verbose=request.verbose) as observer:
        results = from_gguf.quantize_gguf(
            given.source,
            **_planning_arguments(request, given),
            threads=given.threads or request.threads,
            backend=request.backend,
            overwrite=request.overwrite,
            resume=request.resume,
            max_memory=memory_bound(request.max_memory),
            buffer=request.max_buffer_size << 20 if request.max_buffer_size else None,
            observer=observer,
            profile=profile,
        )
    show_results(results, as_json=request.json, quiet=request.quiet, profile=profile)


def _show_plan(request: QuantizeRequest, given: Arguments) -> None:
    from gguf_forge.cli.results import show_plans
    from gguf_forge.gguf_file.opened import open_gguf
    from gguf_forge.planning import from_gguf
    from gguf_forge.planning.file_plan import check_files

    with logging_to(console(sys.stderr), quiet=request.quiet, verbose=request.verbose), open_gguf(given.source) as gguf:
        files = from_gguf.plan_quantized(gguf, **_planning_arguments(request, given), only_planned=True)
        try:
            check_files(files, backend=request.backend, overwrite=request.overwrite, resume=request.resume)
        except ForgeError as error:
            log.warning("quantizing would be refused: %s", error)
        show_plans(files, as_json=request.json, quiet=request.quiet)


def _planning_arguments(request: QuantizeRequest, given: Arguments) -> dict[str, Any]:
    return {
        "out": given.out,
        "types": given.types,
        "options": replace(recipe_options(request), allow_requantize=request.allow_requantize),
        "output_dir": request.output_dir,
        "split": split_of(request, keep=request.keep_split),
        "strict": request.strict,
    }


def read_arguments(given: Sequence[str]) -> Arguments:
    """Tells the arguments apart as llama-quantize does: the second one is the output if it is no file type.

    Raises:
        UsageError: there are too few or too many, or one is not what it should be.

    Example:
        >>> read_arguments(["in.gguf", "out.gguf", "Q4_K_M", "8"])
        Arguments(source='in.gguf', out='out.gguf', types=['Q4_K_M'], threads=8)
    """
    source, *rest = given
    out = None
    if rest and not _are_types(rest[0]):
        out, *rest = rest
    if not rest:
        raise UsageError("the file type is missing", hint="say IN.gguf [OUT.gguf] TYPE, for example in.gguf Q4_K_M")
    types, *rest = rest
    if len(rest) > 1 or not all(re.fullmatch("-?[0-9]+", text) for text in rest):
        raise UsageError(f"{' '.join(rest)!r} is no number of threads", hint="say IN.gguf [OUT.gguf] TYPE [NTHREADS]")
    threads = int(rest[0]) if rest else 0
    return Arguments(source, out, type_names([types]) or [types], threads if threads > 0 else None)


def _are_types(text: str) -> bool:
    from gguf_forge.recipe import file_type

    try:
        return bool([file_type(name) for name in type_names([text]) or ()])
    except UsageError:
        return False
