"""`gguf-forge merge`: the parts of a split become one GGUF file, as llama-gguf-split makes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gguf_forge.cli.options import OUTPUT, DryRun, MessageOptions, Overwrite, Threads, add_command, flag
from gguf_forge.cli.split import show_copy, show_copy_plan


@dataclass(frozen=True, kw_only=True)
class MergeRequest(MessageOptions):
    """The command line of `merge`."""

    source: Annotated[
        Path,
        typer.Argument(
            metavar="FIRST-PART", show_default=False, help="NAME-00001-of-0000N.gguf; the others lie beside it."
        ),
    ]
    out: Annotated[Path, typer.Argument(metavar="OUT.gguf", show_default=False, help="The file to be.")]
    delete_splits: Annotated[
        bool, flag("--delete-splits", panel=OUTPUT, help="Delete the parts when the file is complete.")
    ] = False
    overwrite: Overwrite = False
    dry_run: DryRun = False
    threads: Threads = None


def register(app: typer.Typer) -> None:
    add_command(app, "merge", MergeRequest, merge)


def merge(request: MergeRequest) -> None:
    """Merge the parts of a split into one GGUF file, with the bytes of llama-gguf-split.

    Examples:

    - `gguf-forge merge model-00001-of-00003.gguf model.gguf`
    - `gguf-forge merge model-00001-of-00003.gguf model.gguf --delete-splits`
    """
    from gguf_forge.cli.progress import observing
    from gguf_forge.toolbox.edit import splitting

    if request.dry_run:
        show_copy_plan(request, partial(splitting.plan_merge, out=request.out))
        return
    with observing(quiet=request.quiet, verbose=request.verbose) as observer:
        result = splitting.merge_gguf(
            request.source,
            request.out,
            delete_splits=request.delete_splits,
            threads=request.threads,
            overwrite=request.overwrite,
            observer=observer,
        )
    show_copy(result.file, as_json=request.json, quiet=request.quiet, seconds=result.seconds)
