"""`gguf-forge plan`: what `convert` would write, without reading a weight; and the plan of a job for many machines."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from gguf_forge.cli.convert import ConvertRequest
from gguf_forge.cli.options import MACHINES, AllowRequantize, add_command, type_names, value
from gguf_forge.cli.streams import console, logging_to
from gguf_forge.errors import ForgeError, UsageError
from gguf_forge.request import Request, planned

log = logging.getLogger(__name__)

# So that a command line of `convert` works here as it is.
_OF_CONVERT = ("dry_run", "resume", "threads", "backend", "max_memory", "profile")


@dataclass(frozen=True, kw_only=True)
class PlanRequest(ConvertRequest):
    """The command line of `plan`."""

    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="A Hugging Face folder: config.json, tokenizer files, .safetensors files. Or a GGUF file.",
        ),
    ]
    allow_requantize: AllowRequantize = False
    out: Annotated[
        Path | None,
        value(
            "--out",
            metavar="FILE",
            panel=MACHINES,
            help="Write the plan to a file, for `gguf-forge work` and `finish`.",
        ),
    ] = None
    tasks: Annotated[
        int | None,
        value(
            "--tasks",
            metavar="N",
            panel=MACHINES,
            help="Cut the work into so many tasks of about the same size. [default: one for each file or part]",
            min=1,
        ),
    ] = None


def register(app: typer.Typer) -> None:
    add_command(app, "plan", PlanRequest, plan, hidden=_OF_CONVERT)


def plan(request: PlanRequest) -> None:
    """Show what `convert` would write: every tensor, its type, shape and size, and the disk needed.

    It is `convert --dry-run`: no weight is read. With `--out`, the plan is also written to a file, cut into tasks: each
    is done by itself, on any machine that sees the same disk, and the result put together in the end.

    Examples:

    - `gguf-forge plan Qwen3-0.6B`
    - `gguf-forge plan Qwen3-0.6B -t Q4_K_M --output-tensor-type q8_0`
    - `gguf-forge plan Qwen3-0.6B -t Q2_K,Q4_K_M,Q8_0 --json | jq '.files[] | {type, size}'`
    - `gguf-forge plan Qwen3-235B-A22B --out plan.json --tasks 16`, then `gguf-forge work plan.json --task 0` to 15,
      then `gguf-forge finish plan.json`
    """
    if request.tasks is not None and request.out is None:
        raise UsageError("--tasks cuts a plan that is written down", hint="name its file with --out plan.json")
    from gguf_forge.cli.results import show_plans
    from gguf_forge.distributed.job import Job
    from gguf_forge.distributed.job_plan import save_work_plan
    from gguf_forge.planning.file_plan import check_files

    asked = _request(request)
    with logging_to(console(sys.stderr), quiet=request.quiet, verbose=request.verbose), planned(asked) as found:
        try:
            check_files(found.files, backend=request.backend, overwrite=request.overwrite, resume=request.resume)
        except ForgeError as error:
            log.warning("converting would be refused: %s", error)
        job = None
        if request.out is not None:
            written = save_work_plan(found, asked, request.out, tasks=request.tasks, overwrite=request.overwrite)
            job = Job(written, request.out)
        show_plans(found.files, as_json=request.json, quiet=request.quiet, job=job)


def _request(request: PlanRequest) -> Request:
    given: dict[str, Any] = {"out": request.outfile, "types": type_names(request.type)}
    same = {field.name for field in fields(Request)} - given.keys()
    return Request(**given, **{name: getattr(request, name) for name in same})
