"""`gguf-forge quantize`: a GGUF file becomes GGUF files of other types, as llama-quantize makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple

import typer

from gguf_forge.cli.help import MAKE
from gguf_forge.cli.options import DryRun, Messages, add_command, one_output, refuse_standard_output
from gguf_forge.errors import UsageError, printable
from gguf_forge.file_choices import FileChoices
from gguf_forge.foreign_text import natural
from gguf_forge.option import OUTPUT, Option, parse_names
from gguf_forge.request import Request
from gguf_forge.run_settings import RunSettings


class Arguments(NamedTuple):
    """The positional arguments of llama-quantize, each in its field."""

    source: str
    out: str | None
    types: tuple[str, ...]
    threads: int | None


def register(app: typer.Typer) -> None:
    add_command(app, "quantize", quantize, panel=MAKE)


def quantize(
    arguments: Annotated[
        tuple[str, ...],
        Option(
            "IN.gguf [OUT.gguf] [TYPE] [NTHREADS]",
            "The file, or the first one of a split; the output, by default ggml-model-TYPE.gguf next to it; "
            "the file type by name or number, in any case, COPY to keep all types, several with commas. "
            "-o and -t also give these two; -o folder/ keeps the model's name.",
        ),
    ],
    choices: FileChoices,
    run: RunSettings,
    messages: Messages,
    out: Annotated[
        str | None,
        Option(
            "-o --outfile",
            "The output: a file, a name with {ftype} in it, or a folder, where the file has the name of IN.gguf with "
            "the new type. A name that ends in a slash is a folder; missing folders are made. "
            "[default: ggml-model-TYPE.gguf next to IN.gguf]",
            OUTPUT,
            metavar="OUT",
        ),
    ] = None,
    types: Annotated[
        tuple[str, ...],
        Option(
            "-t --type --outtype",
            "The file type, as for `gguf-forge convert`.",
            OUTPUT,
            metavar="TYPE",
            parse=parse_names,
            values="file types",
        ),
    ] = (),
    dry_run: DryRun = False,
) -> None:
    """Quantize a GGUF file: the arguments of llama-quantize, and its bytes.

    Examples:

    - `gguf-forge quantize model-BF16.gguf Q4_K_M`
    - `gguf-forge quantize model-BF16.gguf -t Q4_K_M -o 'model-{ftype}.gguf'`
    - `gguf-forge quantize model-BF16.gguf model-Q4_K_M.gguf q4_k_m 8`
    - `gguf-forge quantize model-BF16.gguf Q4_K_M,Q8_0 -o quantized/`
    - `gguf-forge quantize model-BF16-00001-of-00004.gguf out.gguf Q6_K --keep-split`
    - `gguf-forge quantize model-BF16-00001-of-00004.gguf out.gguf Q6_K --keep-split --partial --resume`
    - `gguf-forge quantize --dry-run --tensor-type 'ffn_down=q6_k' model-BF16.gguf Q4_K_M --json`
    """
    from gguf_forge.cli.making import make_and_show, plan_and_show

    given = read_arguments(arguments, types)
    refuse_standard_output(given.out)
    request = Request.of(choices, source=given.source, out=one_output(given.out, out), types=given.types)
    run = replace(run, threads=given.threads or run.threads)
    if dry_run:
        plan_and_show(request, run, messages, "quantizing", only_planned=True)
    else:
        make_and_show(request, run, messages)


def read_arguments(given: Sequence[str], types: Sequence[str] = ()) -> Arguments:
    """Tells the arguments apart as llama-quantize does: the second one is the output if it is no file type.

    Args:
        given: The arguments.
        types: Those of --type. With them, the arguments have the input and the output alone.

    Raises:
        UsageError: there are too few or too many, or one is not what it should be.

    Example:
        >>> read_arguments(["in.gguf", "out.gguf", "Q4_K_M", "8"])
        Arguments(source='in.gguf', out='out.gguf', types=('Q4_K_M',), threads=8)
    """
    source, *rest = given
    out = None
    if rest and not _are_types(rest[0]):
        out, *rest = rest
        _check_output(out)
    if types:
        if rest:
            problem = f"with --type, {rest[0]!r} is neither the input nor the output"
            raise UsageError(problem, hint="leave out one of the two types; --threads gives the number of threads")
        return Arguments(source, out, tuple(types), None)
    if not rest:
        raise UsageError(
            "the file type is missing", hint="the arguments are IN.gguf [OUT.gguf] TYPE, for example in.gguf Q4_K_M"
        )
    named, *rest = rest
    threads = natural(rest[0].removeprefix("-")) if rest else 0
    if len(rest) > 1 or threads is None:
        raise UsageError(
            f"expected a number of threads after the type, got {' '.join(rest)!r}",
            hint="the arguments are IN.gguf [OUT.gguf] TYPE [NTHREADS]",
        )
    is_given = threads > 0 and not rest[0].startswith("-")  # llama-quantize takes 0 and less for its default
    return Arguments(source, out, parse_names([named]) or (named,), threads if is_given else None)


def _are_types(text: str) -> bool:
    from gguf_forge.recipe.file_types import are_types

    return are_types(name.strip() for name in text.split(",") if name.strip())


def _check_output(name: str) -> None:
    """Raises UsageError for the name of an output that is a type with a slip in it, such as q5km."""
    from gguf_forge.recipe.file_types import meant_types

    meant = () if {"/", "."} & set(name) else meant_types(name)
    if meant:
        hint = f"did you mean {' or '.join(meant)}? ./{name} names a file"
        raise UsageError(f"{printable(name)} is no file type, and a strange name of an output", hint=hint)
