"""The options that commands share, and how a frozen dataclass of options becomes a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer

# What `-t` accepts, for the help; the recipe room has the facts, and a test compares the two.
TYPE_NAMES = (
    "F32 F16 BF16 auto Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K "
    "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4_MOE Q1_0 Q2_0"
)

OUTPUT, MIX, MODEL, RUNNING, MESSAGES = "Output", "Types of tensors", "Model and metadata", "Running", "Messages"
MACHINES = "Many machines"
_PANELS = (OUTPUT, MIX, MODEL, RUNNING, MESSAGES, MACHINES)  # as help shows them, below those of one command


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
        help="Only show every tensor, its type, shape and size, and the disk needed. Reads no weight; with --resume a "
        "row of each tensor, if the output is there.",
    ),
]
Pure = Annotated[bool, flag("--pure", panel=MIX, help="One type for all tensors, no mix.")]
AllowRequantize = Annotated[
    bool,
    flag(
        "--allow-requantize",
        panel=MIX,
        help="Quantize what is quantized already. That loses more than starting from 16 or 32 bits.",
    ),
]
LeaveOutputTensor = Annotated[bool, flag("--leave-output-tensor", panel=MIX, help="Do not quantize output.weight.")]
OutputTensorType = Annotated[
    str | None, value("--output-tensor-type", metavar="TYPE", panel=MIX, help="Type of output.weight.")
]
TokenEmbeddingType = Annotated[
    str | None, value("--token-embedding-type", metavar="TYPE", panel=MIX, help="Type of token_embd.weight.")
]
Strict = Annotated[
    bool,
    flag(
        "--strict",
        panel=MIX,
        help="Refuse to give a tensor another type where its rows do not divide into the blocks of its own.",
    ),
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
ModelName = Annotated[
    str | None,
    value(
        "--model-name",
        metavar="NAME",
        panel=MODEL,
        help="The model's name. [default: from the model card, the config, the folder]",
    ),
]
MetadataFile = Annotated[
    Path | None,
    value(
        "--metadata",
        metavar="FILE",
        panel=MODEL,
        help="A JSON file with general.* keys that outrank the model card.",
    ),
]
PreTokenizer = Annotated[
    str | None,
    value(
        "--pre-tokenizer",
        metavar="NAME",
        panel=MODEL,
        help="How text is split before BPE, for a fine-tune whose tokenizer is not recognized: "
        "the name of the model it comes from, such as llama-bpe or qwen2.",
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


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """What deviates from the mix of a file type, whatever the file is made of."""

    pure: Pure = False
    leave_output_tensor: LeaveOutputTensor = False
    output_tensor_type: OutputTensorType = None
    token_embedding_type: TokenEmbeddingType = None
    tensor_type: TensorTypes = None
    tensor_type_file: TensorTypeFile = None
    imatrix: Imatrix = None
    include_weights: IncludeWeights = None
    exclude_weights: ExcludeWeights = None
    override_kv: OverrideKv = None
    prune_layers: PruneLayers = None


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What is said of a checkpoint that does not say it."""

    model_name: ModelName = None
    metadata: MetadataFile = None
    pre_tokenizer: PreTokenizer = None


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """How files are written."""

    split_max_size: SplitMaxSize = None
    split_max_tensors: SplitMaxTensors = None
    no_tensor_first_split: NoTensorFirstSplit = False
    overwrite: Overwrite = False
    resume: Resume = False
    dry_run: DryRun = False
    strict: Strict = False
    max_memory: MaxMemory = None
    profile: ShowProfile = False


@dataclass(frozen=True, kw_only=True)
class KernelOptions:
    """How kernels run."""

    threads: Threads = None
    backend: Backend = None


@dataclass(frozen=True, kw_only=True)
class MessageOptions:
    """What is said, and how."""

    json: Json = False
    quiet: Quiet = False
    verbose: Verbose = False


def add_command(
    app: typer.Typer, name: str, request: type[T], run: Callable[[T], None], *, hidden: Sequence[str] = ()
) -> None:
    """Makes `run` a command whose arguments are the fields of the dataclass `request`.

    Args:
        app: Gets the command.
        name: Of the command; its help is the docstring of `run`.
        request: A dataclass whose fields are annotated with typer's arguments and options. Help shows those of a class
            before those of its bases.
        run: Is given the request.
        hidden: Fields that work and are not in the help.
    """
    hints = get_type_hints(request, include_extras=True)

    def command(**given: Any) -> None:
        run(request(**given))

    parameters = [_parameter(field, hints[field.name], field.name in hidden) for field in _in_order(request)]
    parameters.sort(key=_panel)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, help=inspect.getdoc(run))(command)


def _in_order(request: type) -> list[Field[Any]]:
    every = {field.name: field for field in fields(request)}
    names = dict.fromkeys(name for each in request.__mro__ for name in inspect.get_annotations(each))
    return [every[name] for name in names]


def _panel(parameter: inspect.Parameter) -> int:
    """The number of its panel in the help; -1 for arguments, and for a panel that only this command has."""
    panel = get_args(parameter.annotation)[1].rich_help_panel
    return _PANELS.index(panel) if panel in _PANELS else -1


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
