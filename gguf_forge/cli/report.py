"""`gguf-forge report`: a page about a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gguf_forge.cli.help import LOOK
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.streams import print_data, print_json
from gguf_forge.errors import UsageError
from gguf_forge.foreign_text import file_name
from gguf_forge.option import OUTPUT, Option
from gguf_forge.request import BaseModel
from gguf_forge.run_settings import RunSettings

if TYPE_CHECKING:
    from gguf_forge.toolbox.report.data import Report

_NO_BREAK = "\N{NO-BREAK SPACE}"  # between numbers and units, on the page


@dataclass(frozen=True, kw_only=True)
class ReportChoices:
    """The options of `report`: what the file was made of and how, and where the page goes."""

    source: Annotated[
        Path | None,
        Option(
            "--source",
            "What the file was made of: a Hugging Face folder, or a GGUF file of more bits. The page then shows "
            "how far every tensor is from it.",
            OUTPUT,
            metavar="DIR|GGUF",
        ),
    ] = None
    drop_tensor: Annotated[
        tuple[str, ...],
        Option(
            "--drop-tensor",
            "The tensors of the source that were left out when the file was made: the same patterns as then.",
            OUTPUT,
            metavar="REGEX",
        ),
    ] = ()
    lora: Annotated[
        tuple[str, ...],
        Option(
            "--lora",
            "The adapters that were merged into the model when the file was made, with the same scales.",
            OUTPUT,
            metavar="ADAPTER[:SCALE]",
        ),
    ] = ()
    base_model: BaseModel = None
    out: Annotated[
        Path | None,
        Option(
            "-o --outfile",
            "The page. [default: FILE's name with .html in the current folder; with --json none]",
            OUTPUT,
            metavar="PAGE.html",
        ),
    ] = None

    def check(self) -> None:
        """Raises UsageError if options say how a source is read, and none is given."""
        of_source = {"--drop-tensor": self.drop_tensor, "--lora": self.lora, "--base": self.base_model}
        if self.source is None and (given := [option for option, value in of_source.items() if value]):
            raise UsageError(f"{given[0]} is for a source", hint="name it with --source")

    def page(self, file: Path, messages: Messages) -> Path | None:
        """The page of a file; None if only its data are asked for."""
        if self.out is not None or messages.json:
            return self.out
        return Path(f"{file_name(file.name.removesuffix('.gguf')) or 'report'}.html")


def register(app: typer.Typer) -> None:
    add_command(app, "report", report, panel=LOOK)


def report(
    file: Annotated[Path, Option("FILE", "A GGUF file, or the first one of a split.")],
    run: Annotated[RunSettings, only("overwrite", "threads")],
    messages: Messages,
    choices: ReportChoices,
) -> None:
    """Draw a page about a GGUF file: sizes, errors, levels, and quantization on the file's own weights.

    The page is one HTML file that loads nothing else. With --source it shows what rounding changed.

    The error of a tensor is its RMSE, divided by the RMS of the source's weights. The error of a block is the RMSE of
    the block, divided by the same RMS of the whole tensor.

    Examples:

    - `gguf-forge report model-Q4_K_M.gguf`
    - `gguf-forge report model-Q4_K_M.gguf --source Qwen3-0.6B -o page.html`
    - `gguf-forge report model-Q4_K_M.gguf --source model-BF16.gguf --json | jq '.tensors[] | {name, error}'`
    """
    from gguf_forge.cli.progress import counting
    from gguf_forge.gguf_file.opened import open_gguf
    from gguf_forge.toolbox.report import report as make_report
    from gguf_forge.toolbox.report.data import as_object

    choices.check()
    out = choices.page(file, messages)
    with open_gguf(file) as gguf:
        size = sum(tensor.nbytes for tensor in gguf.tensors) * (1 if choices.source is None else 2)
    with counting("looking", size, messages) as progress:
        found = make_report(
            file,
            out,
            source=choices.source,
            drop_tensor=choices.drop_tensor,
            lora=choices.lora,
            base_model=choices.base_model,
            threads=run.threads,
            overwrite=run.overwrite,
            progress=progress,
        )
    if messages.json:
        print_json({"page": str(out) if out is not None else None, **as_object(found)})
    elif not messages.quiet:
        print_data(*(text.replace(_NO_BREAK, " ") for text in _summary(found, str(out))))


def _summary(found: Report, page: str) -> Iterator[str]:
    """A summary of a few lines on the terminal, for users who do not open the page."""
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
