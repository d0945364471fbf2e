"""Options of other tools, llama.cpp's converters most of all, that people have in their scripts.

Some have no effect here. Of the others it is said what to use instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from gguf_forge.option import MODEL, RUNNING, Option

_INSTEAD = {
    "--output": "-o or --outfile names the output",
    "--remote": "download the model first, for example with `hf download`, and name its folder",
    "--trust-remote-code": "leave it out: no code of a model is ever run",
}


@dataclass(frozen=True, kw_only=True)
class WithoutEffect:
    """Options that are accepted and change nothing: memory is bounded in any case, and there is no temporary file."""

    no_lazy: Annotated[bool, Option("--no-lazy", "Has no effect.", RUNNING, hidden=True)] = False
    use_temp_file: Annotated[bool, Option("--use-temp-file", "Has no effect.", RUNNING, hidden=True)] = False


def print_supported_models() -> None:
    """The classes of models that can be converted, in the form of llama.cpp's converter."""
    from gguf_forge.architectures.supported import supported_classes
    from gguf_forge.checkpoint.mistral_form import PARAMS
    from gguf_forge.cli.streams import print_line

    print_line("Supported models:")
    for part in ("text", "mmproj"):
        print_line(f"{part.upper()} models:")
        for found in supported_classes():
            if found.part == part and found.name != PARAMS:
                print_line(f"  - {found.name}")


SupportedModels = Annotated[
    bool,
    Option(
        "--print-supported-models",
        "Print the names of all classes of models that can be converted, and do nothing else; `gguf-forge info` has a "
        "table of them.",
        MODEL,
        at_once=print_supported_models,
    ),
]


def instead_of(problem: str) -> str | None:
    """What to use instead of the unknown option that a message names; None for options that nobody knows.

    Example:
        >>> instead_of("No such option: --trust-remote-code")
        'leave it out: no code of a model is ever run'
    """
    found = re.search(r"No such option: (--[a-z-]+)", problem)
    return _INSTEAD.get(found[1]) if found else None
