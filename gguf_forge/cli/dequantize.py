"""`gguf-forge dequantize`: back to floats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from gguf_forge.cli.help import MAKE
from gguf_forge.cli.options import DryRun, Messages, add_command, only
from gguf_forge.cli.streams import logging_to
from gguf_forge.file_choices import SplitChoices
from gguf_forge.option import OUTPUT, Option
from gguf_forge.run_settings import RunSettings

_COPY = (
    "{folder} has the tensors alone: to load it, copy config.json and the tokenizer's files of the original model there"
)


@dataclass(frozen=True, kw_only=True)
class DequantizeChoices:
    """The options of `dequantize`: the form of the floats, and where they go."""

    out: Annotated[
        Path | None,
        Option(
            "-o --outfile",
            "A file or folder; with --safetensors a folder, which is made. [default: next to FILE]",
            OUTPUT,
            metavar="OUT",
        ),
    ] = None
    type: Annotated[
        str | None,
        Option(
            "-t --type --outtype",
            "F32, F16 or BF16. [default: that of a float file, else F32, which loses nothing]",
            OUTPUT,
            metavar="TYPE",
            values="float types",
        ),
    ] = None
    safetensors: Annotated[
        bool,
        Option(
            "--safetensors",
            "The tensors of the Hugging Face checkpoint instead: its names, shapes and order of rows. A LoRA adapter "
            "becomes the folder that PEFT loads.",
            OUTPUT,
        ),
    ] = False
    config: Annotated[
        Path | None,
        Option(
            "--config",
            "With --safetensors: the model's config.json, or the folder that has it. It names the class whose tensor "
            "names are wanted, and has what a GGUF file lacks. For a LoRA adapter, that of its base model. [default: "
            "the class that fits the file best]",
            OUTPUT,
            metavar="CONFIG",
        ),
    ] = None


def register(app: typer.Typer) -> None:
    add_command(app, "dequantize", dequantize, panel=MAKE)


def dequantize(
    file: Annotated[Path, Option("FILE", "A GGUF file, or the first one of a split.")],
    parts: Annotated[SplitChoices, only("split_max_size")],
    run: Annotated[RunSettings, only("overwrite", "threads", "backend")],
    messages: Messages,
    choices: DequantizeChoices,
    dry_run: DryRun = False,
) -> None:
    """Unpack a GGUF file to floats: as a GGUF file, or as the tensors of a Hugging Face checkpoint.

    What quantizing lost does not come back.

    Examples:

    - `gguf-forge dequantize model-Q4_K_M.gguf`
    - `gguf-forge dequantize model-Q8_0.gguf -t F16 -o model-F16.gguf`
    - `gguf-forge dequantize model-Q4_K_M.gguf --safetensors -t BF16 -o my-checkpoint`
    - `gguf-forge dequantize model-Q8_0.gguf --safetensors --config Qwen3-0.6B`
    """
    from gguf_forge.checkpoint.adapter_config import CONFIG
    from gguf_forge.cli.making import say_what_would_stop
    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.results import show_plans, show_results
    from gguf_forge.cli.streams import print_data
    from gguf_forge.cli.tables import line
    from gguf_forge.gguf_file.opened import GgufFile, open_gguf
    from gguf_forge.planning.file_plan import FilePlan
    from gguf_forge.planning.splits import split_of
    from gguf_forge.toolbox.edit.dequantize import make_dequantized, plan_dequantized

    max_size = split_of(parts).max_size

    def planned(gguf: GgufFile) -> FilePlan:
        return plan_dequantized(
            *(gguf, choices.out),
            file_type=choices.type,
            safetensors=choices.safetensors,
            max_size=max_size,
            config=choices.config,
        )

    if dry_run:
        with logging_to(messages), open_gguf(file) as gguf:
            plan = planned(gguf)
            say_what_would_stop([plan], run)
            show_plans([plan], messages)
        return
    with observing(messages) as observer, open_gguf(file) as gguf:
        result = make_dequantized(planned(gguf), replace(run, observer=observer))
    show_results([result], messages)
    is_adapter = result.path.name == CONFIG
    if choices.safetensors and not (is_adapter or messages.json or messages.quiet):
        print_data("", line(_COPY.format(folder=result.path.parent), no_wrap=True))
