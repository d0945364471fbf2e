"""`gguf-forge job work`: one task of a plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.tables import duration, facts_text
from gguf_forge.option import Option
from gguf_forge.run_settings import RunSettings

PlanFile = Annotated[Path, Option("PLAN", "What `gguf-forge job plan` wrote.")]


def register(app: typer.Typer, *, hidden: bool = False) -> None:
    add_command(app, "work", work, hidden=hidden)


def work(
    plan: PlanFile,
    task: Annotated[int, Option("--task", "Which task; the first one is 0.", metavar="N")],
    run: Annotated[RunSettings, only("threads", "backend", "max_memory")],
    messages: Messages,
) -> None:
    """Do one task of a plan, on any machine that sees the disk of the plan.

    Its parts go into a folder next to the output, and appear there only when they are complete. A task may be stopped
    and run again, even twice at the same time. A task that is done already is only checked, also after the plan is
    finished.

    Examples:

    - `gguf-forge job work plan.json --task 0`
    - `gguf-forge job work plan.json --task $SLURM_ARRAY_TASK_ID`
    """
    from rich.filesize import decimal

    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.streams import print_data, print_json
    from gguf_forge.distributed.work import do_task

    with observing(messages) as observer:
        done = do_task(plan, task, replace(run, observer=observer))
    if messages.json:
        print_json(
            {
                "task": done.task,
                "parts": [str(path) for path in done.parts],
                "size": done.size,
                "seconds": round(done.seconds, 3),
                "was_done": done.was_done,
                "is_finished": done.is_finished,
            }
        )
    elif not messages.quiet:
        state = "was done already" if done.was_done else "done"
        state += "; the plan is finished" if done.is_finished else ""
        size = f"{decimal(done.size)} in {len(done.parts)} parts" if len(done.parts) != 1 else decimal(done.size)
        print_data(facts_text({f"task {done.task}": state, "size": size, "time": duration(done.seconds)}))
