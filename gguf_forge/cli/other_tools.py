"""Options of other tools, llama.cpp's converters most of all, that people have in their scripts.

Some have no effect here. Of the others it is said what to use instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gguf_forge.option import MODEL, RUNNING, Option

_TYPE = "-t names the file type, for example -t Q4_K_M"
_CONTEXT = "a file has no context of its own choice; `gguf-forge types MODEL --context 8192` tells what memory it takes"
_INSTEAD = {
    "--output": "-o or --outfile names the output",
    "--out": "-o or --outfile names the output; --save-plan names the plan of a job",
    "--remote": "download the model first, for example with `hf download`, and name its folder",
    "--trust-remote-code": "leave it out: no code of a model is ever run",
    "--quantize": _TYPE,
    "--quantization": _TYPE,
    "--quant": _TYPE,
    "--qtype": _TYPE,
    "--dtype": _TYPE,
    "--ctx": _CONTEXT,
    "--ctx-size": _CONTEXT,
    "--n-ctx": _CONTEXT,
    "--chat-template": "put chat_template.jinja into the model's folder, or change the finished file: "
    "`gguf-forge edit FILE --chat-template chat_template.jinja`",
    "--license": "set it with --override-kv general.license=str:mit, or as license: in the model card, README.md",
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


def instead_of(option: str) -> str | None:
    """What to use instead of an unknown option; None for options that nobody knows.

    Example:
        >>> instead_of("--trust-remote-code")
        'leave it out: no code of a model is ever run'
    """
    return _INSTEAD.get(option)
