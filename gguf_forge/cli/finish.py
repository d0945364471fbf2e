"""`gguf-forge job finish`: makes the final files of what the tasks of a plan wrote."""

from __future__ import annotations

from typing import Annotated

import typer

from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.tables import duration, facts_text
from gguf_forge.cli.work import PlanFile
from gguf_forge.run_settings import RunSettings


def register(app: typer.Typer, *, hidden: bool = False) -> None:
    add_command(app, "finish", finish, hidden=hidden)


def finish(plan: PlanFile, run: Annotated[RunSettings, only("overwrite", "threads")], messages: Messages) -> None:
    """Put together what the tasks of a plan made, when all are done.

    Every part is checked against what its task recorded, and tasks that are missing or damaged are named. A file that
    one task made gets its name and no copy, so splits of a part for each task take no more room; other files are
    copied together. It may be stopped and run again; when all is finished, it only checks the files.

    Examples:

    - `gguf-forge job finish plan.json`
    """
    from rich.filesize import decimal

    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.streams import print_data, print_json
    from gguf_forge.distributed.finish import finish as put_together

    with observing(messages) as observer:
        done = put_together(plan, overwrite=run.overwrite, threads=run.threads, observer=observer)
    if messages.json:
        files = [{"path": str(path), "size": size} for path, size in zip(done.paths, done.sizes, strict=True)]
        print_json({"files": files, "seconds": round(done.seconds, 3), "was_finished": done.was_finished})
    elif not messages.quiet:
        facts = {str(path): decimal(size) for path, size in zip(done.paths, done.sizes, strict=True)}
        state = {"plan": "was finished already; the files are as they were then"} if done.was_finished else {}
        print_data(facts_text({**facts, **state, "time": duration(done.seconds)}))
