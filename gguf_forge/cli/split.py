"""`gguf-forge split`: a GGUF file becomes several, as llama-gguf-split makes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.cli.help import CHANGE
from gguf_forge.cli.options import DryRun, Messages, Partial, add_command, only, required_output
from gguf_forge.cli.streams import logging_to
from gguf_forge.cli.tables import duration, facts_text, line, table_of
from gguf_forge.file_choices import SplitChoices
from gguf_forge.option import OUTPUT, Option
from gguf_forge.run_settings import RunSettings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gguf_forge.planning.file_plan import FilePlan


def register(app: typer.Typer) -> None:
    add_command(app, "split", split, panel=CHANGE)


def split(
    source: Annotated[Path, Option("IN.gguf", "The file to split. Give the first file of a split to split it again.")],
    parts: Annotated[SplitChoices, only("split_max_size", "split_max_tensors", "no_tensor_first_split")],
    run: Annotated[RunSettings, only("overwrite", "threads")],
    messages: Messages,
    prefix: Annotated[
        Path | None, Option("[PREFIX]", "The beginning of the names: PREFIX-00001-of-00003.gguf.", writes=True)
    ] = None,
    out: Annotated[
        Path | None, Option("-o --outfile", "PREFIX, instead of the second argument.", OUTPUT, metavar="PREFIX")
    ] = None,
    partial: Partial = False,
    dry_run: DryRun = False,
) -> None:
    """Split a GGUF file into several: the options of llama-gguf-split, and its bytes.

    Without an option, a part has at most 128 tensors.

    Examples:

    - `gguf-forge split model-BF16.gguf parts/model-BF16 --split-max-size 2G`
    - `gguf-forge split model.gguf model --split-max-tensors 64 --no-tensor-first-split`
    - `gguf-forge split model.gguf model --split-max-size 500M --dry-run --json | jq '.parts[].size'`
    """
    from gguf_forge.cli.making import say_what_would_stop
    from gguf_forge.cli.progress import observing
    from gguf_forge.gguf_file.opened import open_gguf
    from gguf_forge.planning.splits import split_of
    from gguf_forge.toolbox.edit.splitting import make_split, plan_split

    how, place = split_of(parts), required_output(prefix, out, "PREFIX")
    if dry_run:
        with logging_to(messages), open_gguf(source, lenient=True) as gguf:
            file = plan_split(gguf, place, how, partial=partial)
            say_what_would_stop([file], run)
            show_copy(file, messages)
        return
    with observing(messages) as observer, open_gguf(source, lenient=True) as gguf:
        result = make_split(plan_split(gguf, place, how, partial=partial), replace(run, observer=observer))
    show_copy(result.file, messages, result.seconds)


def show_copy(file: FilePlan, messages: Messages, seconds: float | None = None) -> None:
    """Shows the files that `split` or `merge` made. Without a time, these are the files that it would make."""
    from gguf_forge.cli.streams import print_data, print_json

    if messages.json:
        print_json(_object(file, seconds))
    elif not messages.quiet:
        print_data(*_text(file, seconds))


def _object(file: FilePlan, seconds: float | None) -> dict[str, Any]:
    parts = [
        {"path": str(shard.path), "size": shard.layout.size, "tensors": [t.info.name for t in shard.layout.tensors]}
        for shard in file.shards
    ]
    inputs = [str(path) for path in file.inputs]
    return {
        "inputs": inputs,
        "size": file.size,
        "parts": parts,
        **({"seconds": round(seconds, 3)} if seconds is not None else {}),
    }


def _text(file: FilePlan, seconds: float | None) -> Iterator[RenderableType]:
    from rich.filesize import decimal

    table = table_of("file", "tensors", "size", right=("tensors", "size"))
    for shard in file.shards:
        table.add_row(line((str(shard.path), "bold green")), str(len(shard.layout.tensors)), decimal(shard.layout.size))
    facts = {"tensors": str(len(file.tensors)), "size": decimal(file.size)}
    if seconds is not None:
        facts["time"] = f"{duration(seconds)}, {decimal(int(file.size / max(seconds, 1e-9)))}/s"
    yield from (table, "", facts_text(facts))
