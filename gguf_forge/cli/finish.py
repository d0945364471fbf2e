"""`gguf-forge finish`: what the tasks of a plan made becomes the files."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from gguf_forge.cli.options import MessageOptions, Overwrite, Threads, add_command
from gguf_forge.cli.tables import facts_text
from gguf_forge.cli.work import PlanFile


@dataclass(frozen=True, kw_only=True)
class FinishRequest(MessageOptions):
    """The command line of `finish`."""

    plan: PlanFile
    overwrite: Overwrite = False
    threads: Threads = None


def register(app: typer.Typer) -> None:
    add_command(app, "finish", FinishRequest, finish)


def finish(request: FinishRequest) -> None:
    """Put together what the tasks of a plan made, when all are done.

    Every part is checked against what its task recorded, and tasks that are missing or damaged are named. A file that
    one task made gets its name and no copy, so splits of a part for each task take no more room; other files are
    copied together. It may be stopped and run again; when all is finished, it only checks the files.

    Examples:

    - `gguf-forge finish plan.json`
    """
    from rich.filesize import decimal

    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.streams import print_data, print_json
    from gguf_forge.distributed.finish import finish as put_together

    with observing(quiet=request.quiet, verbose=request.verbose) as observer:
        done = put_together(request.plan, overwrite=request.overwrite, threads=request.threads, observer=observer)
    if request.json:
        files = [{"path": str(path), "size": size} for path, size in zip(done.paths, done.sizes, strict=True)]
        print_json({"files": files, "seconds": round(done.seconds, 3), "was_finished": done.was_finished})
    elif not request.quiet:
        facts = {str(path): decimal(size) for path, size in zip(done.paths, done.sizes, strict=True)}
        state = {"plan": "was finished already; the files are as they were then"} if done.was_finished else {}
        print_data(facts_text({**facts, **state, "time": f"{done.seconds:.1f} s"}))
