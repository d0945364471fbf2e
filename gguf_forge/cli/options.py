"""The options that commands share, and how a frozen dataclass of options becomes a command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar, get_args, get_type_hints

import typer

from gguf_forge.errors import UsageError

if TYPE_CHECKING:
    from gguf_forge.recipe import ImportanceMatrix, Options
    from gguf_forge.splits import Split

# What `-t` accepts, for the help; the recipe room has the facts, and a test compares the two.
TYPE_NAMES = (
    "F32 F16 BF16 auto Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K "
    "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE Q1_0 Q2_0"
)

OUTPUT, MIX, MODEL, RUNNING, MESSAGES = "Output", "Types of tensors", "Model and metadata", "Running", "Messages"


def flag(*names: str, panel: str, help: str) -> Any:
    """An option that is there or not."""
    # Without the metavar, help says <bool> of it.
    return typer.Option(*names, metavar="", rich_help_panel=panel, help=help)


def value(*names: str, metavar: str, panel: str, help: str, **more: Any) -> Any:
    """An option with a value; what its default means is for `help` to say."""
    return typer.Option(*names, metavar=metavar, rich_help_panel=panel, show_default=False, help=help, **more)


OutFile = Annotated[
    str | None,
    value(
        "-o",
        "--outfile",
        metavar="OUT",
        panel=OUTPUT,
        help="A file, a folder, or a name with {ftype} in it. [default: NAME-TYPE.gguf in the current folder]",
    ),
]
Types = Annotated[
    list[str] | None,
    value(
        "-t",
        "--type",
        "--outtype",
        metavar="TYPE",
        panel=OUTPUT,
        help=f"File type, in any case; several with commas or by repeating it. [default: Q4_K_M] One of {TYPE_NAMES}.",
    ),
]
SplitMaxSize = Annotated[
    str | None,
    value(
        "--split-max-size",
        metavar="N(K|M|G)",
        panel=OUTPUT,
        help="Split the output into parts of at most so many bytes of tensors; M is a million.",
    ),
]
SplitMaxTensors = Annotated[
    int | None,
    value(
        "--split-max-tensors",
        metavar="N",
        panel=OUTPUT,
        help="Split the output into parts of at most so many tensors.",
        min=1,
    ),
]
NoTensorFirstSplit = Annotated[
    bool,
    flag("--no-tensor-first-split", panel=OUTPUT, help="Split the output; the first part has metadata alone."),
]
Overwrite = Annotated[bool, flag("--overwrite", panel=OUTPUT, help="Replace the output if it exists.")]
Resume = Annotated[
    bool,
    flag(
        "--resume",
        panel=OUTPUT,
        help="Go on from what a stopped run left; if this one is stopped, keep what is finished. "
        "An output that is complete already is left as it is.",
    ),
]
DryRun = Annotated[
    bool,
    flag(
        "--dry-run",
        panel=OUTPUT,
        help="Only show every tensor, its type, shape and size, and the disk needed. Reads no weight.",
    ),
]
Pure = Annotated[bool, flag("--pure", panel=MIX, help="One type for all tensors, no mix.")]
LeaveOutputTensor = Annotated[bool, flag("--leave-output-tensor", panel=MIX, help="Do not quantize output.weight.")]
OutputTensorType = Annotated[
    str | None, value("--output-tensor-type", metavar="TYPE", panel=MIX, help="Type of output.weight.")
]
TokenEmbeddingType = Annotated[
    str | None, value("--token-embedding-type", metavar="TYPE", panel=MIX, help="Type of token_embd.weight.")
]
TensorTypes = Annotated[
    list[str] | None,
    value(
        "--tensor-type",
        metavar="REGEX=TYPE",
        panel=MIX,
        help="Type of the tensors whose name the pattern finds. Repeatable; the first that matches counts.",
    ),
]
TensorTypeFile = Annotated[
    Path | None,
    value(
        "--tensor-type-file",
        metavar="FILE",
        panel=MIX,
        help="More REGEX=TYPE, separated by blanks or newlines; tried after those of --tensor-type.",
    ),
]
Imatrix = Annotated[
    Path | None,
    value(
        "--imatrix",
        metavar="FILE",
        panel=MIX,
        help="An importance matrix (.dat or .gguf) of llama-imatrix: errors count by how much a column is used.",
    ),
]
IncludeWeights = Annotated[
    list[str] | None,
    value(
        "--include-weights",
        metavar="TEXT",
        panel=MIX,
        help="Use the matrix for tensors with this text in their name only. Repeatable.",
    ),
]
ExcludeWeights = Annotated[
    list[str] | None,
    value(
        "--exclude-weights",
        metavar="TEXT",
        panel=MIX,
        help="Do not use the matrix for tensors with this text in their name. Repeatable.",
    ),
]
OverrideKv = Annotated[
    list[str] | None,
    value(
        "--override-kv",
        metavar="KEY=TYPE:VALUE",
        panel=MODEL,
        help="Set a metadata key; TYPE is int, float, bool or str. Repeatable.",
    ),
]
PruneLayers = Annotated[
    str | None,
    value("--prune-layers", metavar="N,N...", panel=MODEL, help="Leave out these layers; those above move down."),
]
Threads = Annotated[
    int | None,
    value(
        "-j",
        "--threads",
        metavar="N",
        panel=RUNNING,
        help="How many threads. [default: the processors this process may use]",
        min=1,
        envvar="GGUF_FORGE_THREADS",
    ),
]
MaxMemory = Annotated[
    str | None,
    value(
        "--max-memory",
        metavar="N(K|M|G)",
        panel=RUNNING,
        help="The most memory to take, everything counted, whatever the model. [default: 1G]",
    ),
]
Backend = Annotated[
    str | None,
    value(
        "--backend",
        metavar="NAME",
        panel=RUNNING,
        help="Which kernels, of those that `gguf-forge info` lists. [default: GGUF_FORGE_BACKEND, or the fastest]",
    ),
]
ShowProfile = Annotated[
    bool,
    flag("--profile", panel=MESSAGES, help="Show where the time went: reading, quantizing, writing..., by thread."),
]
Json = Annotated[bool, flag("--json", panel=MESSAGES, help="One JSON object on standard output, nothing else.")]
Quiet = Annotated[bool, flag("-q", "--quiet", panel=MESSAGES, help="Nothing but errors.")]
Verbose = Annotated[bool, flag("-v", "--verbose", panel=MESSAGES, help="Notes on what is done, too.")]

T = TypeVar("T")

_POWERS = ("", "K", "M", "G")


class MixRequest(Protocol):
    """The options that say what deviates from the mix of a file type."""

    @property
    def pure(self) -> bool: ...
    @property
    def leave_output_tensor(self) -> bool: ...
    @property
    def output_tensor_type(self) -> str | None: ...
    @property
    def token_embedding_type(self) -> str | None: ...
    @property
    def tensor_type(self) -> list[str] | None: ...
    @property
    def tensor_type_file(self) -> Path | None: ...
    @property
    def imatrix(self) -> Path | None: ...
    @property
    def include_weights(self) -> list[str] | None: ...
    @property
    def exclude_weights(self) -> list[str] | None: ...
    @property
    def override_kv(self) -> list[str] | None: ...
    @property
    def prune_layers(self) -> str | None: ...


def recipe_options(request: MixRequest) -> Options:
    """What deviates from the mix of the file type."""
    from gguf_forge import recipe
    from gguf_forge.tensor_types import TensorType

    def target(name: str | None) -> TensorType | None:
        return recipe.parse_target_type(name) if name is not None else None

    file = request.tensor_type_file
    from_file = recipe.parse_tensor_type_file(file) if file else ()
    return recipe.Options(
        pure=request.pure,
        leave_output_tensor=request.leave_output_tensor,
        output_tensor_type=target(request.output_tensor_type),
        token_embedding_type=target(request.token_embedding_type),
        tensor_types=(*map(recipe.parse_tensor_type, request.tensor_type or ()), *from_file),
        key_overrides=tuple(map(recipe.parse_key_override, request.override_kv or ())),
        prune_layers=recipe.parse_prune_layers(request.prune_layers) if request.prune_layers is not None else (),
        imatrix=_importance(request),
        read_from=(file,) if file else (),
    )


class SplitRequest(Protocol):
    """The options that say how the output is split."""

    @property
    def split_max_size(self) -> str | None: ...
    @property
    def split_max_tensors(self) -> int | None: ...
    @property
    def no_tensor_first_split(self) -> bool: ...


def split_of(request: SplitRequest, *, keep: bool = False) -> Split:
    """How the output is split."""
    from gguf_forge.splits import Split

    size = parse_size(request.split_max_size) if request.split_max_size is not None else None
    return Split(keep, size, request.split_max_tensors, request.no_tensor_first_split)


def parse_size(text: str, *, option: str = "--split-max-size", unit: int = 1000) -> int:
    """The bytes in `text`: a number and K, M, G or nothing, as powers of `unit`.

    Raises:
        UsageError: it is something else.

    Example:
        >>> parse_size("2G")
        2000000000
    """
    found = re.fullmatch("([0-9]+)([KMG]?)", text)
    if found is None:
        raise UsageError(f"{option} {text!r} is no size", hint="for example 500M or 2G")
    return int(found[1]) * int(unit ** _POWERS.index(found[2]))


def memory_bound(text: str | None) -> int | None:
    """The bytes that --max-memory says, in powers of 1024."""
    return None if text is None else parse_size(text, option="--max-memory", unit=1024)


def _importance(request: MixRequest) -> ImportanceMatrix | None:
    include, exclude = request.include_weights or (), request.exclude_weights or ()
    if request.imatrix is None:
        if include or exclude:
            raise UsageError("--include-weights and --exclude-weights choose from a matrix: give one with --imatrix")
        return None
    from gguf_forge.recipe import read_imatrix

    return read_imatrix(request.imatrix).selected(include, exclude)


def add_command(
    app: typer.Typer, name: str, request: type[T], run: Callable[[T], None], *, hidden: Sequence[str] = ()
) -> None:
    """Makes `run` a command whose arguments are the fields of the dataclass `request`.

    Args:
        app: Gets the command.
        name: Of the command; its help is the docstring of `run`.
        request: A dataclass whose fields are annotated with typer's arguments and options.
        run: Is given the request.
        hidden: Fields that work and are not in the help.
    """
    hints = get_type_hints(request, include_extras=True)

    def command(**given: Any) -> None:
        run(request(**given))

    parameters = [_parameter(field, hints[field.name], field.name in hidden) for field in fields(request)]  # type: ignore[arg-type]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, help=inspect.getdoc(run))(command)


def _parameter(field: Field[Any], hint: Any, hidden: bool) -> inspect.Parameter:
    kind, option = get_args(hint)
    if hidden:
        option = copy(option)
        option.hidden = True
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def type_names(given: Sequence[str] | None) -> list[str] | None:
    """`-t A,B -t C` as A, B, C; None where the default is meant."""
    names = [name.strip() for text in given or () for name in text.split(",")]
    return [name for name in names if name] or None
