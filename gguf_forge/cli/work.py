"""`gguf-forge work`: one task of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gguf_forge.cli.options import KernelOptions, MaxMemory, MessageOptions, add_command
from gguf_forge.cli.tables import facts_text

PlanFile = Annotated[
    Path, typer.Argument(metavar="PLAN", show_default=False, help="What `gguf-forge plan ... --out PLAN` wrote.")
]


@dataclass(frozen=True, kw_only=True)
class WorkRequest(KernelOptions, MessageOptions):
    """The command line of `work`."""

    plan: PlanFile
    task: Annotated[
        int,
        typer.Option("--task", metavar="N", show_default=False, help="Which task; the first one is 0."),
    ]
    max_memory: MaxMemory = None


def register(app: typer.Typer) -> None:
    add_command(app, "work", WorkRequest, work)


def work(request: WorkRequest) -> None:
    """Do one task of a plan, on any machine that sees the disk of the plan.

    What it makes goes into a folder beside the output, and is complete or not there. A task may be stopped and done
    again, also twice at the same time; one that is done already is only checked, when the plan is finished, too.

    Examples:

    - `gguf-forge work plan.json --task 0`
    - `gguf-forge work plan.json --task $SLURM_ARRAY_TASK_ID`
    """
    from rich.filesize import decimal

    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.streams import print_data, print_json
    from gguf_forge.distributed.work import work as do_task
    from gguf_forge.request import memory_bound

    with observing(quiet=request.quiet, verbose=request.verbose) as observer:
        done = do_task(
            request.plan,
            request.task,
            threads=request.threads,
            backend=request.backend,
            max_memory=memory_bound(request.max_memory),
            observer=observer,
        )
    if request.json:
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
    elif not request.quiet:
        state = "was done already" if done.was_done else "done"
        state += "; the plan is finished" if done.is_finished else ""
        size = f"{decimal(done.size)} in {len(done.parts)} parts" if len(done.parts) != 1 else decimal(done.size)
        print_data(facts_text({f"task {done.task}": state, "size": size, "time": f"{done.seconds:.1f} s"}))
