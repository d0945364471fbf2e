"""`gguf-forge plan`: what `convert` would write, without reading a weight."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gguf_forge.cli.help import LOOK, MACHINES
from gguf_forge.cli.job import Tasks, save_job
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.errors import UsageError
from gguf_forge.option import MESSAGES, OUTPUT, Option
from gguf_forge.request import Request
from gguf_forge.run_settings import RunSettings

# Options of `convert` that change nothing in a plan are accepted too, so that its command line works here unchanged.
Run = Annotated[
    RunSettings,
    only("overwrite", hidden=("resume", "threads", "backend", "max_memory", "buffer", "profile")),
]


def register(app: typer.Typer) -> None:
    add_command(app, "plan", plan, panel=LOOK)


def plan(
    request: Request,
    run: Run,
    messages: Messages,
    save_plan: Annotated[
        Path | None,
        Option("--save-plan", "Write the plan to a file, for `gguf-forge job`.", MACHINES, metavar="FILE", writes=True),
    ] = None,
    tasks: Tasks = None,
    summary: Annotated[bool, Option("--summary", "Only the sizes of the files, no tensors.", MESSAGES)] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", "Accepted and ignored: this command always is a dry run.", OUTPUT, hidden=True)
    ] = False,
) -> None:
    """Show what `convert` would write: every tensor, its type, shape and size, and the disk needed.

    It is `convert --dry-run`: no weight is read. With `--save-plan`, the plan is also written to a file, as
    `gguf-forge job plan` does it, for many machines.

    Examples:

    - `gguf-forge plan Qwen3-0.6B`
    - `gguf-forge plan Qwen3-0.6B -t Q4_K_M --output-tensor-type q8_0`
    - `gguf-forge plan Qwen3-0.6B -t 'Q4_*,Q5_*' --summary`
    - `gguf-forge plan Qwen3-0.6B -t Q2_K,Q4_K_M,Q8_0 --json | jq '.files[] | {type, size}'`
    - `gguf-forge plan Qwen3-235B-A22B --save-plan plan.json --tasks 16`
    """
    if save_plan is not None:
        save_job(request, run, messages, save_plan, tasks)
        return
    if tasks is not None:
        raise UsageError(
            "--tasks works only on a plan that is written to a file", hint="name its file with --save-plan plan.json"
        )
    from gguf_forge.cli.making import plan_and_show

    plan_and_show(request, run, messages, "converting", only_planned=True, summary=summary)
