"""Options of other tools, llama.cpp's converters most of all, that people have in their scripts.

Some have no effect here. Of the others it is said what to use instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from gguf_forge.option import RUNNING, Option

_INSTEAD = {
    "--output": "-o or --outfile names the output",
    "--print-supported-models": "`gguf-forge info --models` lists the classes that can be converted",
    "--remote": "download the model first, for example with `hf download`, and name its folder",
    "--base-model-id": "download the base model's config.json, and name its folder with --base",
    "--trust-remote-code": "leave it out: no code of a model is ever run",
}


@dataclass(frozen=True, kw_only=True)
class WithoutEffect:
    """Options that are accepted and change nothing: memory is bounded in any case, and there is no temporary file."""

    no_lazy: Annotated[bool, Option("--no-lazy", "Has no effect.", RUNNING, hidden=True)] = False
    use_temp_file: Annotated[bool, Option("--use-temp-file", "Has no effect.", RUNNING, hidden=True)] = False


def instead_of(problem: str) -> str | None:
    """What to use instead of the unknown option that a message names; None for options that nobody knows.

    Example:
        >>> instead_of("No such option: --trust-remote-code")
        'leave it out: no code of a model is ever run'
    """
    found = re.search(r"No such option: (--[a-z-]+)", problem)
    return _INSTEAD.get(found[1]) if found else None
