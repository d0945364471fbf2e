"""`gguf-forge convert`: a checkpoint becomes GGUF files."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.cli.options import (
    MIX,
    MODEL,
    OUTPUT,
    Backend,
    Json,
    OutFile,
    Overwrite,
    Quiet,
    Threads,
    Types,
    Verbose,
    add_command,
    flag,
    type_names,
    value,
)
from gguf_forge.cli.streams import console, logging_to
from gguf_forge.errors import ForgeError, UsageError

if TYPE_CHECKING:
    from gguf_forge.recipe import ImportanceMatrix, Options

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """The command line of `convert` and `plan`."""

    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="A Hugging Face folder: config.json, tokenizer files, .safetensors files.",
        ),
    ]
    outfile: OutFile = None
    type: Types = None
    overwrite: Overwrite = False
    dry_run: Annotated[
        bool,
        flag(
            "--dry-run",
            panel=OUTPUT,
            help="Only show every tensor, its type, shape and size, and the disk needed. Reads no weight.",
        ),
    ] = False

    pure: Annotated[bool, flag("--pure", panel=MIX, help="One type for all tensors, no mix.")] = False
    leave_output_tensor: Annotated[
        bool, flag("--leave-output-tensor", panel=MIX, help="Do not quantize output.weight.")
    ] = False
    output_tensor_type: Annotated[
        str | None, value("--output-tensor-type", metavar="TYPE", panel=MIX, help="Type of output.weight.")
    ] = None
    token_embedding_type: Annotated[
        str | None, value("--token-embedding-type", metavar="TYPE", panel=MIX, help="Type of token_embd.weight.")
    ] = None
    tensor_type: Annotated[
        list[str] | None,
        value(
            "--tensor-type",
            metavar="REGEX=TYPE",
            panel=MIX,
            help="Type of the tensors whose name the pattern finds. Repeatable; the first that matches counts.",
        ),
    ] = None
    tensor_type_file: Annotated[
        Path | None,
        value(
            "--tensor-type-file",
            metavar="FILE",
            panel=MIX,
            help="More REGEX=TYPE, separated by blanks or newlines; tried after those of --tensor-type.",
        ),
    ] = None

    imatrix: Annotated[
        Path | None,
        value(
            "--imatrix",
            metavar="FILE",
            panel=MIX,
            help="An importance matrix (.dat or .gguf) of llama-imatrix: errors count by how much a column is used.",
        ),
    ] = None
    include_weights: Annotated[
        list[str] | None,
        value(
            "--include-weights",
            metavar="TEXT",
            panel=MIX,
            help="Use the matrix for tensors with this text in their name only. Repeatable.",
        ),
    ] = None
    exclude_weights: Annotated[
        list[str] | None,
        value(
            "--exclude-weights",
            metavar="TEXT",
            panel=MIX,
            help="Do not use the matrix for tensors with this text in their name. Repeatable.",
        ),
    ] = None

    model_name: Annotated[
        str | None,
        value(
            "--model-name",
            metavar="NAME",
            panel=MODEL,
            help="The model's name. [default: from the model card, the config, the folder]",
        ),
    ] = None
    metadata: Annotated[
        Path | None,
        value(
            "--metadata",
            metavar="FILE",
            panel=MODEL,
            help="A JSON file with general.* keys that outrank the model card.",
        ),
    ] = None
    override_kv: Annotated[
        list[str] | None,
        value(
            "--override-kv",
            metavar="KEY=TYPE:VALUE",
            panel=MODEL,
            help="Set a metadata key; TYPE is int, float, bool or str. Repeatable.",
        ),
    ] = None
    pre_tokenizer: Annotated[
        str | None,
        value(
            "--pre-tokenizer",
            metavar="NAME",
            panel=MODEL,
            help="How text is split before BPE, for a fine-tune whose tokenizer is not recognized: "
            "the name of the model it comes from, such as llama-bpe or qwen2.",
        ),
    ] = None
    vocab_only: Annotated[bool, flag("--vocab-only", panel=MODEL, help="Metadata and vocabulary, no tensors.")] = False
    prune_layers: Annotated[
        str | None,
        value("--prune-layers", metavar="N,N...", panel=MODEL, help="Leave out these layers; those above move down."),
    ] = None

    threads: Threads = None
    backend: Backend = None

    json: Json = False
    quiet: Quiet = False
    verbose: Verbose = False


def register(app: typer.Typer) -> None:
    add_command(app, "convert", ConvertRequest, convert)


def convert(request: ConvertRequest) -> None:
    """Convert a Hugging Face folder to a quantized GGUF file, in one pass.

    Examples:

    - `gguf-forge convert Qwen3-0.6B`
    - `gguf-forge convert Qwen3-0.6B -o models/ -t Q4_K_M,Q8_0`
    - `gguf-forge convert Qwen3-0.6B -o 'qwen-{ftype}.gguf' --tensor-type 'ffn_down=q6_k'`
    - `gguf-forge convert my-finetune --pre-tokenizer qwen2`
    - `gguf-forge convert Qwen3-0.6B --dry-run --json | jq '.tensors[].name'`
    """
    if request.dry_run:
        show_plan(request)
        return
    from gguf_forge import conversion
    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.report import show_results

    with observing(quiet=request.quiet, verbose=request.verbose) as observer:
        results = conversion.convert(
            **planning_arguments(request),
            threads=request.threads,
            backend=request.backend,
            overwrite=request.overwrite,
            observer=observer,
        )
    show_results(results, as_json=request.json, quiet=request.quiet)


def show_plan(request: ConvertRequest) -> None:
    """What `convert` would write, and what would stop it."""
    from gguf_forge import conversion
    from gguf_forge.cli.report import show_plans

    with logging_to(console(sys.stderr), quiet=request.quiet, verbose=request.verbose):
        files = conversion.plan_files(**planning_arguments(request))
        try:
            conversion.check_files(files, backend=request.backend, overwrite=request.overwrite)
        except ForgeError as error:
            log.warning("converting would be refused: %s", error)
    show_plans(files, as_json=request.json, quiet=request.quiet)


def planning_arguments(request: ConvertRequest) -> dict[str, Any]:
    """What `gguf_forge.convert` and `gguf_forge.plan` both take."""
    return {
        "source": request.source,
        "out": request.outfile,
        "types": type_names(request.type),
        "options": recipe_options(request),
        "model_name": request.model_name,
        "metadata": request.metadata,
        "pre_tokenizer": request.pre_tokenizer,
        "vocab_only": request.vocab_only,
    }


def recipe_options(request: ConvertRequest) -> Options:
    """What deviates from the mix of the file type."""
    from gguf_forge import recipe
    from gguf_forge.tensor_types import TensorType

    def target(name: str | None) -> TensorType | None:
        return recipe.parse_target_type(name) if name is not None else None

    from_file = recipe.parse_tensor_type_file(request.tensor_type_file) if request.tensor_type_file else ()
    return recipe.Options(
        pure=request.pure,
        leave_output_tensor=request.leave_output_tensor,
        output_tensor_type=target(request.output_tensor_type),
        token_embedding_type=target(request.token_embedding_type),
        tensor_types=(*map(recipe.parse_tensor_type, request.tensor_type or ()), *from_file),
        key_overrides=tuple(map(recipe.parse_key_override, request.override_kv or ())),
        prune_layers=recipe.parse_prune_layers(request.prune_layers) if request.prune_layers is not None else (),
        imatrix=_importance(request),
    )


def _importance(request: ConvertRequest) -> ImportanceMatrix | None:
    include, exclude = request.include_weights or (), request.exclude_weights or ()
    if request.imatrix is None:
        if include or exclude:
            raise UsageError("--include-weights and --exclude-weights choose from a matrix: give one with --imatrix")
        return None
    from gguf_forge.recipe import read_imatrix

    return read_imatrix(request.imatrix).selected(include, exclude)
