"""`gguf-forge report`: a page about a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gguf_forge.cli.options import OUTPUT, MessageOptions, Overwrite, Threads, add_command, value
from gguf_forge.cli.streams import print_data, print_json

if TYPE_CHECKING:
    from gguf_forge.toolbox.report.data import Report


@dataclass(frozen=True, kw_only=True)
class ReportRequest(MessageOptions):
    """The command line of `report`."""

    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", show_default=False, help="A GGUF file, or the first one of a split."),
    ]
    source: Annotated[
        Path | None,
        value(
            "--source",
            metavar="DIR|GGUF",
            panel=OUTPUT,
            help="What the file was made of: a Hugging Face folder, or a GGUF file of more bits. The page then shows "
            "how far every tensor is from it.",
        ),
    ] = None
    outfile: Annotated[
        Path | None,
        value(
            "-o",
            "--outfile",
            metavar="PAGE.html",
            panel=OUTPUT,
            help="The page. [default: FILE's name with .html in the current folder; with --json none]",
        ),
    ] = None
    overwrite: Overwrite = False
    threads: Threads = None


def register(app: typer.Typer) -> None:
    add_command(app, "report", ReportRequest, report)


def report(request: ReportRequest) -> None:
    """Draw a page about a GGUF file: sizes, errors, levels, and quantization on the file's own weights.

    The page is one HTML file that loads nothing else. With --source it shows what rounding changed.

    Examples:

    - `gguf-forge report model-Q4_K_M.gguf`
    - `gguf-forge report model-Q4_K_M.gguf --source Qwen3-0.6B -o page.html`
    - `gguf-forge report model-Q4_K_M.gguf --source model-BF16.gguf --json | jq '.tensors[] | {name, error}'`
    """
    from gguf_forge.cli.progress import counting
    from gguf_forge.gguf_file.opened import open_gguf
    from gguf_forge.toolbox.report import report as make_report
    from gguf_forge.toolbox.report.data import as_object

    out = request.outfile
    if out is None and not request.json:
        out = Path(f"{request.file.name.removesuffix('.gguf')}.html")
    with open_gguf(request.file) as gguf:
        size = sum(tensor.nbytes for tensor in gguf.tensors) * (1 if request.source is None else 2)
    with counting("looking", size, quiet=request.quiet, verbose=request.verbose) as progress:
        found = make_report(
            request.file,
            out,
            source=request.source,
            threads=request.threads,
            overwrite=request.overwrite,
            progress=progress,
        )
    if request.json:
        print_json({"page": str(out) if out is not None else None, **as_object(found)})
    elif not request.quiet:
        print_data(*_summary(found, str(out)))


def _summary(found: Report, page: str) -> Iterator[str]:
    """A few lines for those who don't open the page."""
    from gguf_forge.toolbox.report import words

    model = found.model
    yield f"{page}: {words.count(model.parameters)} weights, {words.bits(model.bits_per_weight)} bits each"
    if found.error is not None:
        ratio = f" ({words.decibels(found.error.snr_db)})" if found.error.snr_db is not None else ""
        yield f"error against {found.source}: {words.percent(found.error.relative)}{ratio}"
    if found.missing:
        yield f"not compared, because the source does not have them: {len(found.missing)} tensors"
    if found.fallbacks:
        yield f"types that stand in for those of {model.file_type}: {len(found.fallbacks)} tensors"
