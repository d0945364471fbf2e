"""The command line, one file per command.

Commands import what they need when they run, so that help and version answer at once.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence

LEAST_ADDRESS_SPACE = 384 << 20  # NumPy's libraries alone take about half of it, and say nothing useful without it


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
    from gguf_forge.cli.app import main as run

    return run(arguments)


__all__ = ["main"]
