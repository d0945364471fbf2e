"""The command line, one file per command.

Commands import what they need when they run, so that help and version answer at once.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Sequence

from gguf_forge.foreign_text import natural

LEAST_ADDRESS_SPACE = 384 << 20  # NumPy's libraries alone take about half of it, and say nothing useful without it

# Objects made, less those freed, from one search for garbage to the next: Python's own 700 search through the modules
# that are loaded and the plan that is made, which are no garbage, for a tenth of the time before the first weight. Rows
# of weights are in no reference cycles, so they are freed at once all the same.
_OBJECTS_BETWEEN_SEARCHES = 50_000

_WIDTHS = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
_WIDEST = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code.

    Args:
        arguments: The arguments without the program's name; None means the arguments of this process.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < LEAST_ADDRESS_SPACE:
        sys.stderr.write(
            f"error: this process may have only {allowed >> 20} MiB of address space, and gguf-forge needs "
            f"{LEAST_ADDRESS_SPACE >> 20} MiB\nhint: allow more with `ulimit -v`\n"
        )
        return 1
    for name in _WIDTHS:
        width = natural(os.environ.get(name, "0"))
        if width is None or width > _WIDEST:
            del os.environ[name]  # rich and typer would fail on it
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_SEARCHES, *before[1:])
    try:
        from gguf_forge.cli.app import main as run

        return run(arguments)
    finally:
        gc.set_threshold(*before)


__all__ = ["main"]
