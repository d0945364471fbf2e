"""`gguf-forge finish`: what the tasks of a plan made becomes the files."""

from __future__ import annotations

import typer

from gguf_forge.cli.options import Json, Overwrite, Quiet, Threads, Verbose
from gguf_forge.cli.tables import facts_text
from gguf_forge.cli.work import PlanFile


def register(app: typer.Typer) -> None:
    app.command("finish")(finish)


def finish(
    plan: PlanFile,
    overwrite: Overwrite = False,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put together what the tasks of a plan made, when all are done.

    Every part is checked against what its task recorded, and tasks that are missing or damaged are named. A file that
    one task made gets its name and no copy, so splits of a part for each task take no more room; other files are
    copied together. It may be stopped and run again; when all is finished, it only checks the files.

    Examples:

    - `gguf-forge finish plan.json`
    """
    from rich.filesize import decimal

    from gguf_forge import finishing
    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.streams import print_data, print_json

    with observing(quiet=quiet, verbose=verbose) as observer:
        done = finishing.finish(plan, overwrite=overwrite, threads=threads, observer=observer)
    if json:
        files = [{"path": str(path), "size": size} for path, size in zip(done.paths, done.sizes, strict=True)]
        print_json({"files": files, "seconds": round(done.seconds, 3), "was_finished": done.was_finished})
    elif not quiet:
        facts = {str(path): decimal(size) for path, size in zip(done.paths, done.sizes, strict=True)}
        state = {"plan": "was finished already; the files are as they were then"} if done.was_finished else {}
        print_data(facts_text({**facts, **state, "time": f"{done.seconds:.1f} s"}))
