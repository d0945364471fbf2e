"""The command line, one file per command.

Commands import what they need when they run, so that help and version answer at once.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress

from gguf_forge.foreign_text import natural

LEAST_ADDRESS_SPACE = 384 << 20  # NumPy's libraries alone take about half of it, and say nothing useful without it

# Objects made, less those freed, from one search for garbage to the next: Python's own 700 search through the modules
# that are loaded and the plan that is made, which are no garbage, for a tenth of the time before the first weight. Rows
# of weights are in no reference cycles, so they are freed at once all the same.
_OBJECTS_BETWEEN_SEARCHES = 100_000

_WIDTHS = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
_WIDEST = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code. It may change variables of the process's environment.

    Args:
        arguments: The arguments without the program's name; None means the arguments of this process.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < LEAST_ADDRESS_SPACE:
        return _refuse(allowed, as_json="--json" in (sys.argv[1:] if arguments is None else arguments))
    for name in _WIDTHS:
        if name in os.environ and not 1 <= (natural(os.environ[name]) or 0) <= _WIDEST:
            del os.environ[name]  # rich and typer would fail on it; with 0 they print nothing
    # NumPy's library for products of matrices starts a thread for each processor, and these wait busily for a while.
    # The products of a conversion have a few hundred rows, so the processors are left to the threads of the conversion.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_SEARCHES, *before[1:])
    try:
        from gguf_forge.cli.app import main as run

        return run(arguments)
    finally:
        gc.set_threshold(*before)
        if arguments is None:
            gc.freeze()  # the process ends, so nothing is searched for garbage once more


def _refuse(allowed: int, *, as_json: bool) -> int:
    """Says that there is too little address space, in the form of every other error."""
    from gguf_forge.cli.streams import SCHEMA

    said = (
        f"this process may have only {allowed >> 20} MiB of address space, and gguf-forge needs "
        f"{LEAST_ADDRESS_SPACE >> 20} MiB"
    )
    hint = "allow more with `ulimit -v`"
    with suppress(OSError):  # nobody can be told
        if sys.stderr is not None:
            sys.stderr.write(f"error: {said}\nhint: {hint}\n")
        if as_json and sys.stdout is not None:
            error = {"code": 1, "kind": "MemoryError", "message": said, "hint": hint}
            sys.stdout.write(json.dumps({"schema": SCHEMA, "error": error}, indent=2) + "\n")
            sys.stdout.flush()
    return 1


__all__ = ["main"]
