"""`gguf-forge types`: all file types of a model side by side, to choose one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.cli.help import LOOK
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.tables import line, table_of
from gguf_forge.errors import UsageError, some_of
from gguf_forge.option import IN_1000, Option, parse_size
from gguf_forge.request import Request, file_types_option
from gguf_forge.run_settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType
    from rich.text import Text

    from gguf_forge.toolbox.choose import TypeChoice, TypeChoices

_FIT = "What has to fit"
_LEAST_BARE = 1_000_000  # bytes that may be given without a letter; less was meant in another unit
_TOKENS = {"": 1, "K": 1 << 10, "M": 1 << 20}


def _parse_fit(text: str | None) -> int | None:
    """The bytes of `--fit`, in the units that sizes are shown in."""
    if text is None:
        return None
    n_bytes, bare = parse_size(text, option="--fit"), text.strip()
    if n_bytes < _LEAST_BARE and not bare[-1].isalpha():
        raise UsageError(f"--fit {bare} is only {bare} bytes", hint=f"did you mean --fit {bare}G?")
    return n_bytes


def _parse_context(text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch("([0-9]{1,9})([KM]?)", text.strip().upper(), re.ASCII)
    tokens = int(found[1]) * _TOKENS[found[2]] if found else 0
    if not tokens:
        raise UsageError(f"--context: {text!r} is no number of tokens", hint="use one such as 4096, or 32k for 32,768")
    return tokens


def register(app: typer.Typer) -> None:
    add_command(app, "types", types, panel=LOOK)


def types(
    request: Annotated[
        Request,
        only(
            *("source", "imatrix", "include_weights", "exclude_weights", "tensor_type", "tensor_type_file"),
            *("pure", "leave_output_tensor", "output_tensor_type", "token_embedding_type"),
            *("pre_tokenizer", "drop_tensor", "lora", "mmproj"),
        ),
    ],
    run: Annotated[RunSettings, only("threads")],
    messages: Messages,
    file_types: Annotated[tuple[str, ...], file_types_option("all")] = (),
    fit: Annotated[
        int | None,
        Option(
            "--fit",
            "The memory that is free for the model, such as 5G on a laptop of 8 GB. The best type for it is named. "
            f"{IN_1000}",
            _FIT,
            "SIZE",
            parse=_parse_fit,
        ),
    ] = None,
    context: Annotated[
        int | None,
        Option(
            "--context",
            "How many tokens of context there has to be room for, such as 32k (k is 1,024). [default: 4k, or the "
            "model's own length if that is less]",
            _FIT,
            "N",
            parse=_parse_context,
        ),
    ] = None,
) -> None:
    """Show every file type of a model: its size, what it loses, and what fits into memory.

    The error is the RMSE of the weights, divided by their RMS. It is estimated from a few rows of some tensors, which
    are rounded to the type and back. A small error in the weights does not always mean a small one in the answers.

    Examples:

    - `gguf-forge types Qwen3-0.6B`
    - `gguf-forge types Qwen3-8B --fit 5G --context 16k`
    - `gguf-forge types Qwen3-0.6B -t IQ2_M,IQ3_M,Q4_K_M --imatrix imatrix.gguf`
    - `gguf-forge types Qwen3-0.6B --fit 2G --json | jq -r .recommended`
    """
    from gguf_forge.cli.streams import logging_to, print_data, print_json, tell
    from gguf_forge.toolbox.choose import choose_type

    # What planning warns of is in the table: types that need an importance matrix, options that have no effect.
    with logging_to(replace(messages, quiet=not messages.verbose)):
        found = choose_type(replace(request, types=file_types), fit=fit, context=context, threads=run.threads)
    if found.is_too_long and not messages.quiet:
        words = f"{found.context:,} tokens are more than the {found.longest:,} that the model was made for"
        tell(line(("warning: ", "bold yellow"), words))
    if messages.json:
        print_json(_object(found))
    elif not messages.quiet:
        print_data(*_text(found, shows_memory=fit is not None or context is not None))


def _object(found: TypeChoices) -> dict[str, Any]:
    """Sizes are in bytes; `error` is the expected root mean square error of the weights, as a share of their own."""
    best = found.recommended
    return {
        "context": found.context,
        "longest_context": found.longest,
        "cache": found.cache,
        "buffers": found.buffers,
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
                "needs_requantize": choice.requantizes,
                "memory": choice.memory,
                "fits": choice.fits,
                "fallback_share": round(choice.file.fallback_share, 6),
                "purpose": choice.purpose,
            }
            for choice in found.choices
        ],
    }


def _text(found: TypeChoices, *, shows_memory: bool) -> Iterator[RenderableType]:
    from rich.filesize import decimal

    numbers = ("size", "bits", "of F16", "error", *(("memory",) if shows_memory else ()))
    table = table_of("type", *numbers, "what it is for", right=numbers, folding=("what it is for",))
    for choice in found.choices:
        table.add_row(
            line((choice.file_type.name + _mark(choice), _style(choice))),
            decimal(choice.file.size),
            f"{choice.file.bits_per_weight:.2f}",
            f"{choice.share:.0%}",
            "" if choice.error is None else f"{choice.error:.2%}",
            *((decimal(choice.memory),) if shows_memory else ()),
            line((choice.purpose, _style(choice))),
        )
    yield table
    yield ""
    for note in _notes(found):
        yield line((note, "dim"))
    if shows_memory:
        parts = f"{decimal(found.cache)} of keys and values for {found.context:,} tokens"
        yield line((f"memory: with {parts}, and {decimal(found.buffers)} of buffers", "dim"))
    if found.fit is not None:
        yield _recommended(found, found.fit)


def _mark(choice: TypeChoice) -> str:
    return " <-" if choice.is_recommended else " *" if choice.needs_imatrix else ""


def _notes(found: TypeChoices) -> Iterator[str]:
    """What the table leaves open."""
    if any(choice.needs_imatrix for choice in found.choices):
        yield "* needs an importance matrix: --imatrix"
    if any(choice.needs_imatrix and choice.error is not None for choice in found.choices):
        yield "  its error without a matrix is shown all the same, where its blocks can be made"
    if any(choice.error is None for choice in found.choices):
        yield "  no error: its blocks cannot even be tried without a matrix"
    if any(choice.requantizes for choice in found.choices):
        yield "the source is quantized: errors are against it, and add to those that it has;"
        yield "converting it needs --allow-requantize"


def _recommended(found: TypeChoices, fit: int) -> Text:
    from rich.filesize import decimal

    best = found.recommended
    if best is not None:
        return line((f"recommended: {best.file_type}, which leaves {decimal(fit - best.memory)} free", "bold green"))
    return line((f"nothing to recommend{_reason(found, fit)}", "bold yellow"))


def _reason(found: TypeChoices, fit: int) -> str:
    """Why no type is recommended: what is possible does not fit, or nothing that is listed is possible."""
    from rich.filesize import decimal

    possible = [choice for choice in found.choices if choice.is_possible]
    lacking = [choice for choice in found.choices if choice.is_for_any_model and choice.needs_imatrix]
    if possible:
        least = min(possible, key=lambda choice: choice.memory)
        fitting = [choice for choice in lacking if choice.fits]
        more = f"; {_names(fitting)} would, with an importance matrix (--imatrix)" if fitting else ""
        return f" fits into {decimal(fit)}: {least.file_type} needs {decimal(least.memory)}{more}"
    if lacking:
        least = min(lacking, key=lambda choice: choice.memory)
        fits = "" if least.fits else f", and the smallest, {least.file_type}, needs {decimal(least.memory)}"
        return f": without an importance matrix (--imatrix), none of {_names(lacking)} can be made{fits}"
    return f": no type for running any model is among {_names(found.choices)}"


def _names(choices: Sequence[TypeChoice]) -> str:
    return some_of([choice.file_type.name for choice in choices])


def _style(choice: TypeChoice) -> str:
    return "bold green" if choice.is_recommended else "dim" if choice.fits is False or choice.needs_imatrix else ""
