"""`gguf-forge dequantize`: back to floats."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gguf_forge.cli.options import (
    OUTPUT,
    Backend,
    DryRun,
    MessageOptions,
    Overwrite,
    SplitMaxSize,
    Threads,
    add_command,
    flag,
    value,
)
from gguf_forge.cli.streams import console, logging_to
from gguf_forge.errors import ForgeError
from gguf_forge.request import parse_size

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DequantizeRequest(MessageOptions):
    """The command line of `dequantize`."""

    file: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="A GGUF file, or the first one of a split.")
    ]
    outfile: Annotated[
        Path | None,
        value(
            "-o",
            "--outfile",
            metavar="OUT",
            panel=OUTPUT,
            help="A file or folder; with --safetensors a folder, which is made. [default: beside FILE]",
        ),
    ] = None
    type: Annotated[
        str | None,
        value(
            "-t",
            "--type",
            "--outtype",
            metavar="TYPE",
            panel=OUTPUT,
            help="F32, F16 or BF16. [default: that of a float file, else F32, which loses nothing]",
        ),
    ] = None
    safetensors: Annotated[
        bool,
        flag(
            "--safetensors",
            panel=OUTPUT,
            help="The tensors of the Hugging Face checkpoint instead: its names, shapes and order of rows.",
        ),
    ] = False
    split_max_size: SplitMaxSize = None
    overwrite: Overwrite = False
    dry_run: DryRun = False
    threads: Threads = None
    backend: Backend = None


def register(app: typer.Typer) -> None:
    add_command(app, "dequantize", DequantizeRequest, dequantize)


def dequantize(request: DequantizeRequest) -> None:
    """Unpack a GGUF file to floats: as a GGUF file, or as the tensors of a Hugging Face checkpoint.

    What quantizing lost does not come back.

    Examples:

    - `gguf-forge dequantize model-Q4_K_M.gguf`
    - `gguf-forge dequantize model-Q8_0.gguf -t F16 -o model-F16.gguf`
    - `gguf-forge dequantize model-Q4_K_M.gguf --safetensors -t BF16 -o my-checkpoint`
    """
    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.results import show_results
    from gguf_forge.toolbox.edit import dequantize as verb

    size = request.split_max_size
    given: dict[str, Any] = {
        "out": request.outfile,
        "type": request.type,
        "safetensors": request.safetensors,
        "max_size": parse_size(size) if size is not None else None,
    }
    if request.dry_run:
        _show_plan(request, given)
        return
    with observing(quiet=request.quiet, verbose=request.verbose) as observer:
        result = verb.dequantize_gguf(
            request.file,
            **given,
            threads=request.threads,
            backend=request.backend,
            overwrite=request.overwrite,
            observer=observer,
        )
    show_results([result], as_json=request.json, quiet=request.quiet)


def _show_plan(request: DequantizeRequest, given: dict[str, Any]) -> None:
    from gguf_forge.cli.results import show_plans
    from gguf_forge.gguf_file.opened import open_gguf
    from gguf_forge.planning.file_plan import check_files
    from gguf_forge.toolbox.edit.dequantize import plan_dequantized

    to = console(sys.stderr)
    with logging_to(to, quiet=request.quiet, verbose=request.verbose), open_gguf(request.file) as gguf:
        plan = plan_dequantized(gguf, **given)
        if plan.path.parent.is_dir():  # of a checkpoint, it will be made
            try:
                check_files([plan], backend=request.backend, overwrite=request.overwrite)
            except ForgeError as error:
                log.warning("this would be refused: %s", error)
        show_plans([plan], as_json=request.json, quiet=request.quiet)
