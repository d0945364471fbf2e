"""`gguf-forge demo`: the main job on a model that it makes by itself."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gguf_forge.cli.help import MACHINE
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.tables import line, lines
from gguf_forge.errors import OutputError
from gguf_forge.option import OUTPUT, Option
from gguf_forge.request import TYPE_NAMES, Request, file_types_option
from gguf_forge.run_settings import RunSettings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gguf_forge.planning.file_plan import WrittenFile

MODEL_NAME = "Forge-Demo"
_TO_TRY = ("Q4_K_M", "Q8_0", *TYPE_NAMES.split())


def register(app: typer.Typer) -> None:
    add_command(app, "demo", demo, panel=MACHINE)


def demo(
    run: Annotated[RunSettings, only("overwrite", "threads", "backend")],
    messages: Messages,
    out: Annotated[
        str | None,
        Option(
            "-o --outfile",
            "A file, a folder, or a name with {ftype} in it. A name that ends in a slash is a folder; missing folders "
            "are made. [default: NAME-TYPE.gguf in a new temporary folder]",
            OUTPUT,
            metavar="OUT",
        ),
    ] = None,
    types: Annotated[tuple[str, ...], file_types_option("Q4_K_M")] = (),
    keep: Annotated[
        Path | None,
        Option("--keep", f"Make the checkpoint in DIR/{MODEL_NAME} and leave it there.", OUTPUT, metavar="DIR"),
    ] = None,
) -> None:
    """Make a small model, convert it, and show the result: needs no model and no network.

    The model is a Llama of 17 million random weights, the same ones each time.

    Examples:

    - `gguf-forge demo`
    - `gguf-forge demo -t Q8_0,Q4_K_M,Q2_K -o .`
    - `gguf-forge demo --keep .` leaves a checkpoint to try `gguf-forge convert` on
    """
    from gguf_forge.cli.demo_checkpoint import make_model
    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.results import show_results
    from gguf_forge.cli.streams import print_data, tell
    from gguf_forge.planning.making import make

    with _folder(keep) as folder, _output(out) as place, observing(messages) as observer:
        if not messages.quiet:
            where = f" in {folder}" if keep is not None else ""  # a temporary folder is removed at the end
            tell(line(f"making a Llama of random weights{where}", no_wrap=True))
        try:
            make_model(folder)
        except OSError as error:
            raise OutputError(f"the model cannot be written: {error.strerror}", file=folder) from error
        request = Request(source=str(folder), out=place, types=types)
        results = make(request, replace(run, observer=observer))
    show_results(results, messages)
    if not messages.json and not messages.quiet:
        print_data(_next_steps(results, folder if keep is not None else None, place if out is None else None))


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep / MODEL_NAME
        return
    with tempfile.TemporaryDirectory(prefix="gguf-forge-") as folder:
        yield Path(folder) / MODEL_NAME


@contextmanager
def _output(out: str | None) -> Iterator[str]:
    """The folder of the GGUF file: the one the user named, or a new one, which is kept if the run succeeds."""
    if out is not None:
        yield out
        return
    folder = tempfile.mkdtemp(prefix="gguf-forge-")
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _next_steps(results: Sequence[WrittenFile], checkpoint: Path | None, temporary: str | None) -> RenderableType:
    file = shlex.quote(str(results[0].path))
    made = {result.file.file_type.name for result in results}
    other = next(name for name in _TO_TRY if name not in made)  # its file cannot be there already
    source = shlex.quote(str(checkpoint)) if checkpoint is not None else "MODEL_FOLDER"
    steps = {
        "run it with llama.cpp (its weights are random: it babbles)": (
            f"llama-cli -m {file} -no-cnv -n 32 -p 'Once upon a time'"
        ),
        "run it with Ollama": f"echo FROM {file} > Modelfile && ollama create forge-demo -f Modelfile",
        "convert a model of yours": f"gguf-forge convert {source} -t {other}",
        **({"remove what this made": f"rm -r {shlex.quote(temporary)}"} if temporary is not None else {}),
    }
    shown = ((line(), line(f"{what}:"), line("  ", (command, "bold"))) for what, command in steps.items())
    return lines(chain.from_iterable(shown), no_wrap=True)
