"""What somebody chooses of the files: the mix of their types, their split, and whose bytes they have.

These are the options that a checkpoint and a GGUF file share. `Request` (`request.py`) has them, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gguf_forge.option import IN_1000, MIX, MODEL, OUTPUT, Option


@dataclass(frozen=True, kw_only=True)
class RecipeChoices:
    """The options that change the mix of a file type. The names are those of llama-quantize's options."""

    pure: Annotated[bool, Option("--pure", "One type for all tensors, no mix.", MIX)] = False
    leave_output_tensor: Annotated[bool, Option("--leave-output-tensor", "Do not quantize output.weight.", MIX)] = False
    output_tensor_type: Annotated[
        str | None, Option("--output-tensor-type", "Type of output.weight.", MIX, metavar="TYPE", values="tensor types")
    ] = None
    token_embedding_type: Annotated[
        str | None,
        Option("--token-embedding-type", "Type of token_embd.weight.", MIX, metavar="TYPE", values="tensor types"),
    ] = None
    tensor_type: Annotated[
        tuple[str, ...],
        Option(
            "--tensor-type",
            "Type of the tensors whose name matches the pattern. Repeatable; the first pattern that matches decides.",
            MIX,
            metavar="REGEX=TYPE",
        ),
    ] = ()
    tensor_type_file: Annotated[
        str | None,
        Option(
            "--tensor-type-file",
            "More REGEX=TYPE, separated by blanks or newlines; # begins a comment. Tried after those of --tensor-type.",
            MIX,
            metavar="FILE",
        ),
    ] = None
    imatrix: Annotated[
        str | None,
        Option(
            "--imatrix",
            "An importance matrix (.dat or .gguf) of llama-imatrix: rounding errors count by how strongly each column "
            "is used, which helps most below 5 bits. It rarely covers the embeddings and the output, which are then "
            "rounded as without one.",
            MIX,
            metavar="FILE",
        ),
    ] = None
    include_weights: Annotated[
        tuple[str, ...],
        Option(
            "--include-weights",
            "Use the matrix for tensors with this text in their name only. Repeatable.",
            MIX,
            metavar="TEXT",
        ),
    ] = ()
    exclude_weights: Annotated[
        tuple[str, ...],
        Option(
            "--exclude-weights",
            "Do not use the matrix for tensors with this text in their name. Repeatable.",
            MIX,
            metavar="TEXT",
        ),
    ] = ()
    uncovered_type: Annotated[
        str | None,
        Option(
            "--uncovered-type",
            "Type of the tensors that cannot do without importance and have none in the matrix, such as those of the "
            "layers that predict further tokens.",
            MIX,
            metavar="TYPE",
            values="tensor types",
        ),
    ] = None
    override_kv: Annotated[
        tuple[str, ...],
        Option(
            "--override-kv",
            "Set a metadata key; TYPE is int, float, bool or str. Repeatable.",
            MODEL,
            metavar="KEY=TYPE:VALUE",
        ),
    ] = ()
    force: Annotated[bool, Option("--force", "Let --override-kv set standard keys to what no reader takes.", MODEL)] = (
        False
    )
    prune_layers: Annotated[
        str | None,
        Option("--prune-layers", "Leave out these layers; those above move down.", MODEL, metavar="N,N..."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SplitChoices:
    """How the output is split."""

    keep_split: Annotated[
        bool, Option("--keep-split", "Split the output as the input, a GGUF file, is split.", OUTPUT)
    ] = False
    partial: Annotated[
        bool,
        Option(
            "--partial",
            "With --keep-split: make the parts whose input is here, as a run with all parts would make them.",
            OUTPUT,
        ),
    ] = False
    split_max_size: Annotated[
        str | None,
        Option(
            "--split-max-size",
            f"Split the output into parts of at most N bytes of tensors. {IN_1000}",
            OUTPUT,
            metavar="N(K|M|G)",
        ),
    ] = None
    split_max_tensors: Annotated[
        int | None,
        Option(
            "--split-max-tensors",
            "Split the output into parts of at most N tensors.",
            OUTPUT,
            metavar="N",
            least=1,
        ),
    ] = None
    no_tensor_first_split: Annotated[
        bool, Option("--no-tensor-first-split", "Split the output; the first part has metadata alone.", OUTPUT)
    ] = False


AsReference = Annotated[
    bool,
    Option(
        "--as-reference",
        "Give the bytes of llama.cpp's own tools also where they are wrong; docs/exactness.md lists these cases.",
        OUTPUT,
    ),
]


@dataclass(frozen=True, kw_only=True)
class FileChoices(RecipeChoices, SplitChoices):
    """What decides a quantized file, whatever it is made of."""

    allow_requantize: Annotated[
        bool,
        Option(
            "--allow-requantize",
            "Also quantize tensors that are quantized already. That loses more than starting from 16 or 32 bits.",
            MIX,
        ),
    ] = False
    strict: Annotated[
        bool,
        Option(
            "--strict",
            "Fail instead of falling back to another type where a row length is not a multiple of the block size.",
            MIX,
        ),
    ] = False
    as_reference: AsReference = False
