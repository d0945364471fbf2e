"""`gguf-forge job`: a conversion cut into tasks, which several machines that share a disk carry out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gguf_forge.cli import finish, work
from gguf_forge.cli.help import MACHINES, Group
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.streams import logging_to
from gguf_forge.option import Option
from gguf_forge.request import Request
from gguf_forge.run_settings import RunSettings

Tasks = Annotated[
    int | None,
    Option(
        "--tasks",
        "The number of tasks to cut the work into, of about the same size. [default: one for each file or part]",
        MACHINES,
        metavar="N",
        least=1,
    ),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=Group, help="Convert on many machines that share a disk.", no_args_is_help=True)
    add_command(group, "plan", plan)
    work.register(group)
    finish.register(group)
    app.add_typer(group, name="job", rich_help_panel=MACHINES)
    # Older scripts call these commands without the name of the group, so the short forms go on working.
    work.register(app, hidden=True)
    finish.register(app, hidden=True)


def plan(
    request: Request,
    run: Annotated[RunSettings, only("overwrite")],
    messages: Messages,
    save_plan: Annotated[
        Path, Option("--save-plan", "The plan. [default: plan.json]", MACHINES, metavar="FILE", writes=True)
    ] = Path("plan.json"),
    tasks: Tasks = None,
) -> None:
    """Plan a conversion in tasks: each is done by itself, on any machine that sees the same disk.

    It takes the options of `gguf-forge convert`. No weight is read but samples, by which a task knows its input again.

    Examples:

    - `gguf-forge job plan Qwen3-235B-A22B --tasks 16`, then `gguf-forge job work plan.json --task 0` to 15,
      then `gguf-forge job finish plan.json`
    - `gguf-forge job plan DeepSeek-V3 -t Q4_K_M --split-max-size 50G --save-plan deepseek.json`
    """
    save_job(request, run, messages, save_plan, tasks)


def save_job(request: Request, run: RunSettings, messages: Messages, file: Path, tasks: int | None) -> None:
    """Writes the plan of a job, shows it, and says what would stop the conversion."""
    from gguf_forge.cli.making import say_what_would_stop
    from gguf_forge.cli.results import show_plans
    from gguf_forge.distributed.job import Job
    from gguf_forge.distributed.job_plan import save_work_plan
    from gguf_forge.planning.making import planned

    with logging_to(messages), planned(request) as found:
        say_what_would_stop(found.files, run, "converting")
        written = save_work_plan(found, request, file, tasks=tasks, overwrite=run.overwrite)
        show_plans(found.files, messages, Job(written, file))
