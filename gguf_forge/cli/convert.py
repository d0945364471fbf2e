"""`gguf-forge convert`: a checkpoint becomes GGUF files."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gguf_forge.cli.options import (
    MODEL,
    KernelOptions,
    MessageOptions,
    MixOptions,
    ModelOptions,
    OutFile,
    Types,
    WritingOptions,
    add_command,
    flag,
    type_names,
)
from gguf_forge.cli.streams import console, logging_to
from gguf_forge.errors import ForgeError
from gguf_forge.request import memory_bound, recipe_options, split_of

if TYPE_CHECKING:
    from gguf_forge.planning.from_checkpoint import Wanted

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConvertRequest(WritingOptions, MixOptions, ModelOptions, KernelOptions, MessageOptions):
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
    vocab_only: Annotated[bool, flag("--vocab-only", panel=MODEL, help="Metadata and vocabulary, no tensors.")] = False


def register(app: typer.Typer) -> None:
    add_command(app, "convert", ConvertRequest, convert)


def convert(request: ConvertRequest) -> None:
    """Convert a Hugging Face folder to a quantized GGUF file, in one pass.

    Examples:

    - `gguf-forge convert Qwen3-0.6B`
    - `gguf-forge convert Qwen3-0.6B -o models/ -t Q4_K_M,Q8_0`
    - `gguf-forge convert Qwen3-0.6B -o 'qwen-{ftype}.gguf' --tensor-type 'ffn_down=q6_k'`
    - `gguf-forge convert Qwen3-235B-A22B --split-max-size 50G`
    - `gguf-forge convert my-finetune --pre-tokenizer qwen2`
    - `gguf-forge convert Qwen3-0.6B --dry-run --json | jq '.tensors[].name'`
    """
    if request.dry_run:
        show_plan(request)
        return
    from gguf_forge.cli.progress import observing
    from gguf_forge.cli.results import show_results
    from gguf_forge.planning import from_checkpoint
    from gguf_forge.storage.profile import Profile

    profile = Profile() if request.profile else None
    with observing(quiet=request.quiet, verbose=request.verbose) as observer:
        results = from_checkpoint.convert(
            request.source,
            **vars(wanted(request)),
            threads=request.threads,
            backend=request.backend,
            overwrite=request.overwrite,
            resume=request.resume,
            max_memory=memory_bound(request.max_memory),
            observer=observer,
            profile=profile,
        )
    show_results(results, as_json=request.json, quiet=request.quiet, profile=profile)


def show_plan(request: ConvertRequest) -> None:
    """What `convert` would write, and what would stop it."""
    from gguf_forge.cli.results import show_plans
    from gguf_forge.planning import from_checkpoint
    from gguf_forge.planning.file_plan import check_files

    with (
        logging_to(console(sys.stderr), quiet=request.quiet, verbose=request.verbose),
        from_checkpoint.open_checkpoint(request.source, request.vocab_only) as checkpoint,
    ):
        files = from_checkpoint.plan_files(checkpoint, wanted(request))
        try:
            check_files(files, backend=request.backend, overwrite=request.overwrite, resume=request.resume)
        except ForgeError as error:
            log.warning("converting would be refused: %s", error)
        show_plans(files, as_json=request.json, quiet=request.quiet)


def wanted(request: ConvertRequest) -> Wanted:
    """The files that are asked for."""
    from gguf_forge.planning.from_checkpoint import Wanted

    return Wanted(
        out=request.outfile,
        types=type_names(request.type),
        options=recipe_options(request),
        model_name=request.model_name,
        metadata=request.metadata,
        pre_tokenizer=request.pre_tokenizer,
        vocab_only=request.vocab_only,
        split=split_of(request),
        strict=request.strict,
    )
