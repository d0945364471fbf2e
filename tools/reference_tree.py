"""What the refresh scripts share: where the project lies, and the llama.cpp tree given on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def reference_tree(usage: str | None) -> Path:
    """The llama.cpp tree that is the only argument; ends the script with its usage if there is none."""
    tree = Path(sys.argv[1]) if len(sys.argv) == 2 else None
    if tree is None or not (tree / "gguf-py/gguf").is_dir():
        sys.exit(usage)
    return tree.resolve()
