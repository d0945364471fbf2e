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
    copied together.

    Examples:

    - `gguf-forge finish plan.json`
    """
    from rich.filesize import decimal

    from gguf_forge import distributed
    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.streams import print_data, print_json

    with observing(quiet=quiet, verbose=verbose) as observer:
        done = distributed.finish(plan, overwrite=overwrite, threads=threads, observer=observer)
    if json:
        files = [{"path": str(path), "size": size} for path, size in zip(done.paths, done.sizes, strict=True)]
        print_json({"files": files, "seconds": round(done.seconds, 3)})
    elif not quiet:
        facts = {str(path): decimal(size) for path, size in zip(done.paths, done.sizes, strict=True)}
        print_data(facts_text({**facts, "time": f"{done.seconds:.1f} s"}))
