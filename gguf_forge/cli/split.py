"""`gguf-forge split`: a GGUF file becomes several, as llama-gguf-split makes them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from gguf_forge.cli.options import (
    DryRun,
    MessageOptions,
    NoTensorFirstSplit,
    Overwrite,
    SplitMaxSize,
    SplitMaxTensors,
    Threads,
    add_command,
)
from gguf_forge.cli.streams import console, logging_to
from gguf_forge.cli.tables import facts_text, table_of
from gguf_forge.errors import ForgeError
from gguf_forge.request import parse_size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gguf_forge.gguf_file.opened import GgufFile
    from gguf_forge.planning.file_plan import FilePlan

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SplitCommand(MessageOptions):
    """The command line of `split`."""

    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN.gguf", show_default=False, help="The file; the first one of a split, to split it anew."
        ),
    ]
    prefix: Annotated[
        Path,
        typer.Argument(
            metavar="PREFIX", show_default=False, help="The beginning of the names: PREFIX-00001-of-00003.gguf."
        ),
    ]
    split_max_tensors: SplitMaxTensors = None
    split_max_size: SplitMaxSize = None
    no_tensor_first_split: NoTensorFirstSplit = False
    overwrite: Overwrite = False
    dry_run: DryRun = False
    threads: Threads = None


def register(app: typer.Typer) -> None:
    add_command(app, "split", SplitCommand, split)


def split(request: SplitCommand) -> None:
    """Split a GGUF file into several: the options of llama-gguf-split, and its bytes.

    Without an option, a part has at most 128 tensors.

    Examples:

    - `gguf-forge split model-BF16.gguf parts/model-BF16 --split-max-size 2G`
    - `gguf-forge split model.gguf model --split-max-tensors 64 --no-tensor-first-split`
    - `gguf-forge split model.gguf model --split-max-size 500M --dry-run --json | jq '.parts[].size'`
    """
    from gguf_forge.cli.progress import observing
    from gguf_forge.toolbox.edit import splitting

    size = request.split_max_size
    bounds: dict[str, Any] = {
        "max_size": parse_size(size) if size is not None else None,
        "max_tensors": request.split_max_tensors,
        "no_tensor_first": request.no_tensor_first_split,
    }
    if request.dry_run:
        show_copy_plan(request, partial(splitting.plan_split, prefix=request.prefix, **bounds))
        return
    with observing(quiet=request.quiet, verbose=request.verbose) as observer:
        result = splitting.split_gguf(
            request.source,
            request.prefix,
            **bounds,
            threads=request.threads,
            overwrite=request.overwrite,
            observer=observer,
        )
    show_copy(result.file, as_json=request.json, quiet=request.quiet, seconds=result.seconds)


class CopyRequest(Protocol):
    """What `split` and `merge` have in common."""

    @property
    def source(self) -> Path: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def json(self) -> bool: ...
    @property
    def quiet(self) -> bool: ...
    @property
    def verbose(self) -> bool: ...


def show_copy_plan(request: CopyRequest, plan: Callable[[GgufFile], FilePlan]) -> None:
    """What would be made of the source, and what would stop it."""
    from gguf_forge.gguf_file.opened import open_gguf
    from gguf_forge.planning.file_plan import check_files

    to = console(sys.stderr)
    with logging_to(to, quiet=request.quiet, verbose=request.verbose), open_gguf(request.source) as gguf:
        file = plan(gguf)
        try:
            check_files([file], overwrite=request.overwrite)
        except ForgeError as error:
            log.warning("this would be refused: %s", error)
        show_copy(file, as_json=request.json, quiet=request.quiet)


def show_copy(file: FilePlan, *, as_json: bool, quiet: bool, seconds: float | None = None) -> None:
    """What `split` and `merge` made, or would make where no time is given."""
    from gguf_forge.cli.streams import print_data, print_json

    if as_json:
        print_json(_object(file, seconds))
    elif not quiet:
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
    from rich.text import Text

    table = table_of("file", "tensors", "size", right=("tensors", "size"))
    for shard in file.shards:
        table.add_row(Text(str(shard.path), "bold green"), str(len(shard.layout.tensors)), decimal(shard.layout.size))
    facts = {"tensors": str(len(file.tensors)), "size": decimal(file.size)}
    if seconds is not None:
        facts["time"] = f"{seconds:.1f} s, {decimal(int(file.size / max(seconds, 1e-9)))}/s"
    yield from (table, "", facts_text(facts))
