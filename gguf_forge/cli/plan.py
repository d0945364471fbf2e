"""`gguf-forge plan`: what `convert` would write, without reading a weight."""

from __future__ import annotations

import typer

from gguf_forge.cli.convert import ConvertRequest, show_plan
from gguf_forge.cli.options import add_command

# So that a command line of `convert` works here as it is.
_OF_CONVERT = ("overwrite", "dry_run", "threads", "backend")


def register(app: typer.Typer) -> None:
    add_command(app, "plan", ConvertRequest, plan, hidden=_OF_CONVERT)


def plan(request: ConvertRequest) -> None:
    """Show what `convert` would write: every tensor, its type, shape and size, and the disk needed.

    It is `convert --dry-run`: no weight is read, nothing is written.

    Examples:

    - `gguf-forge plan Qwen3-0.6B`
    - `gguf-forge plan Qwen3-0.6B -t Q4_K_M --output-tensor-type q8_0`
    - `gguf-forge plan Qwen3-0.6B -t Q2_K,Q4_K_M,Q8_0 --json | jq '.files[] | {type, size}'`
    """
    show_plan(request)
