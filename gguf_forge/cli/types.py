"""`gguf-forge types`: all file types of a model side by side, to choose one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.cli.help import LOOK
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.tables import line, table_of
from gguf_forge.option import IN_1024, Option, parse_size
from gguf_forge.request import Request
from gguf_forge.run_settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.text import Text

    from gguf_forge.toolbox.choose import TypeChoice, TypeChoices

_FIT = "What has to fit"
_CONTEXT = 4096


def _parse_fit(text: str | None) -> int | None:
    return None if text is None else parse_size(text, option="--fit", unit=1024)


def _parse_context(text: str | None) -> int:
    return _CONTEXT if text is None else parse_size(text, option="--context", unit=1024)


def register(app: typer.Typer) -> None:
    add_command(app, "types", types, panel=LOOK)


def types(
    request: Annotated[
        Request,
        only(
            *("source", "types", "imatrix", "include_weights", "exclude_weights", "tensor_type", "tensor_type_file"),
            *("pure", "leave_output_tensor", "output_tensor_type", "token_embedding_type"),
            *("pre_tokenizer", "drop_tensor", "lora", "mmproj"),
        ),
    ],
    run: Annotated[RunSettings, only("threads")],
    messages: Messages,
    fit: Annotated[
        int | None,
        Option(
            "--fit",
            f"The memory at hand, such as 8G. The best type for it is named. {IN_1024}",
            _FIT,
            "SIZE",
            parse=_parse_fit,
        ),
    ] = None,
    context: Annotated[
        int,
        Option(
            "--context",
            "How many tokens of context there has to be room for, such as 32k (k is 1,024). [default: 4k]",
            _FIT,
            "N",
            parse=_parse_context,
        ),
    ] = _CONTEXT,
) -> None:
    """Show every file type of a model: its size, what it loses, and what fits into memory.

    The error is the RMSE of the weights, divided by their RMS. It is estimated from a few rows of some tensors, which
    are rounded to the type and back. A small error in the weights does not always mean a small one in the answers.

    Examples:

    - `gguf-forge types Qwen3-0.6B`
    - `gguf-forge types Qwen3-8B --fit 8G --context 16k`
    - `gguf-forge types Qwen3-0.6B -t IQ2_M,IQ3_M,Q4_K_M --imatrix imatrix.gguf`
    - `gguf-forge types Qwen3-0.6B --fit 2G --json | jq -r .recommended`
    """
    from gguf_forge.cli.streams import logging_to, print_data, print_json
    from gguf_forge.toolbox.choose import choose_type

    # What planning warns of is in the table: types that need an importance matrix, options that have no effect.
    with logging_to(replace(messages, quiet=not messages.verbose)):
        found = choose_type(request, fit=fit, context=context, threads=run.threads)
    if messages.json:
        print_json(_object(found))
    elif not messages.quiet:
        print_data(*_text(found))


def _object(found: TypeChoices) -> dict[str, Any]:
    """Sizes are in bytes; `error` is the expected root mean square error of the weights, as a share of their own."""
    best = found.recommended
    return {
        "context": found.context,
        "cache": found.cache,
        "fit": found.fit,
        "recommended": best.file_type.name if best is not None else None,
        "types": [
            {
                "type": choice.file_type.name,
                "size": choice.file.size,
                "bits_per_weight": round(choice.file.bits_per_weight, 4),
                "share_of_16_bit": round(choice.share, 4),
                "error": None if choice.error is None else round(choice.error, 6),
                "needs_imatrix": choice.needs_imatrix,
                "memory": choice.memory,
                "fits": choice.fits,
                "fallback_share": round(choice.file.fallback_share, 6),
                "purpose": choice.purpose,
            }
            for choice in found.choices
        ],
    }


def _text(found: TypeChoices) -> Iterator[RenderableType]:
    from rich.filesize import decimal

    numbers = ("size", "bits", "of F16", "error", *(("memory",) if found.fit is not None else ()))
    table = table_of("type", *numbers, "what it is for", right=numbers, folding=("what it is for",))
    for choice in found.choices:
        table.add_row(
            line((choice.file_type.name + (" *" if choice.needs_imatrix else ""), _style(choice))),
            decimal(choice.file.size),
            f"{choice.file.bits_per_weight:.2f}",
            f"{choice.share:.0%}",
            "" if choice.error is None else f"{choice.error:.2%}",
            *((decimal(choice.memory),) if found.fit is not None else ()),
            line((choice.purpose, _style(choice))),
        )
    yield table
    yield ""
    if any(choice.needs_imatrix for choice in found.choices):
        yield line(("* needs an importance matrix: --imatrix", "dim"))
    if found.fit is not None:
        yield line((f"memory: with the keys and values of {found.context:,} tokens, {decimal(found.cache)}", "dim"))
        yield _recommended(found, found.fit)


def _recommended(found: TypeChoices, fit: int) -> Text:
    from rich.filesize import decimal

    best = found.recommended
    if best is None:
        usable = [choice for choice in found.choices if choice.is_for_any_model] or found.choices
        least = min(usable, key=lambda choice: choice.memory)
        said = f"nothing to recommend fits into {decimal(fit)}: {least.file_type} needs {decimal(least.memory)}"
        return line((said, "bold yellow"))
    left = decimal(fit - best.memory)
    return line((f"recommended: {best.file_type}, which leaves {left} for llama.cpp's own buffers", "bold green"))


def _style(choice: TypeChoice) -> str:
    return "bold green" if choice.is_recommended else "dim" if choice.fits is False or choice.needs_imatrix else ""
