"""`gguf-forge merge`: the parts of a split become one GGUF file, as llama-gguf-split makes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gguf_forge.cli.help import CHANGE
from gguf_forge.cli.options import DryRun, Messages, Partial, add_command, only, required_output
from gguf_forge.cli.split import show_copy
from gguf_forge.cli.streams import logging_to
from gguf_forge.option import OUTPUT, Option
from gguf_forge.run_settings import RunSettings


def register(app: typer.Typer) -> None:
    add_command(app, "merge", merge, panel=CHANGE)


def merge(
    source: Annotated[
        Path,
        Option("FIRST-PART", "The first part, or any plain piece; the others are in the same folder."),
    ],
    run: Annotated[RunSettings, only("overwrite", "threads")],
    messages: Messages,
    file: Annotated[Path | None, Option("[OUT.gguf]", "The output file.", writes=True)] = None,
    out: Annotated[
        Path | None,
        Option("-o --outfile", "The output file, instead of the second argument.", OUTPUT, metavar="OUT.gguf"),
    ] = None,
    delete_splits: Annotated[
        bool, Option("--delete-splits", "Delete the parts when the file is complete.", OUTPUT)
    ] = False,
    partial: Partial = False,
    dry_run: DryRun = False,
) -> None:
    """Merge the parts of a split into one GGUF file, with the bytes of llama-gguf-split.

    Parts that `cat` has joined are taken apart first. The plain pieces of a file (model.gguf.part1of2,
    model.gguf-split-a, model.gguf.001) become the file that they were.

    Examples:

    - `gguf-forge merge model-00001-of-00003.gguf model.gguf`
    - `gguf-forge merge model-00001-of-00003.gguf model.gguf --delete-splits`
    - `gguf-forge merge model.gguf.part1of2 model.gguf`
    """
    from gguf_forge.cli.making import say_what_would_stop
    from gguf_forge.cli.progress import observing
    from gguf_forge.gguf_file.opened import open_parts
    from gguf_forge.toolbox.edit.splitting import make_merged, plan_merge

    place = required_output(file, out, "OUT.gguf")
    if dry_run:
        with logging_to(messages), open_parts(source) as gguf:
            planned = plan_merge(gguf, place, partial=partial)
            say_what_would_stop([planned], run)
            show_copy(planned, messages)
        return
    with observing(messages) as observer:
        run = replace(run, observer=observer)
        result = make_merged(source, place, run, delete_splits=delete_splits, partial=partial)
    show_copy(result.file, messages, result.seconds)
