"""`gguf-forge imatrix show`: which tensors an importance matrix covers, and which tensors of a model it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.cli.help import LOOK, Group
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.tables import facts_text, line, table_of
from gguf_forge.option import MODEL, Option

if TYPE_CHECKING:
    from gguf_forge.gguf_file.tensor_info import TensorInfo
    from gguf_forge.recipe import ImportanceMatrix
    from gguf_forge.toolbox.inspect.coverage import Coverage

_ABOUT = """\
An importance matrix says how much the error in each column of each tensor counts. It is measured by running the model
on text. gguf-forge reads such a file and does not make one. llama.cpp makes it:

  gguf-forge convert MODEL -t BF16 -o model-BF16.gguf
  llama-imatrix -m model-BF16.gguf -f calibration.txt -o imatrix.gguf
  gguf-forge imatrix show imatrix.gguf MODEL
  gguf-forge convert MODEL -t IQ3_S --imatrix imatrix.gguf

`calibration.txt` is some 100 kB or more of text of the kind that the model is for. A matrix fits all quantizations of
its model, and no other model. `gguf-forge imatrix show --help` has the options.
"""
_COLUMNS = (
    "half in: the share of columns that holds half of the importance, which is small where a matrix matters most; "
    "zero: columns that no text activated; unused: experts that no text reached; calls: how many rows of activations "
    "were summed, the fewest and the most of an expert"
)
_ZEROS = (
    "{} tensors have columns of zeros. Zero means that a column was not seen in calibration, and not that it is of no "
    "use. llama-quantize loses the weights where all columns that share a scale (8 to 32) are zero; gguf-forge counts "
    "such columns as much as the others on average, and says so. A matrix of more text has fewer of them."
)


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        cls=Group, help="Look into importance matrices, or explain how to get one.", invoke_without_command=True
    )
    group.callback()(_explain)
    add_command(group, "show", show)
    app.add_typer(group, name="imatrix", rich_help_panel=LOOK)


def _explain(context: typer.Context) -> None:
    from gguf_forge.cli.streams import print_data

    if context.invoked_subcommand is None:
        print_data(line(_ABOUT.rstrip(), no_wrap=True, keep="\n"))


def show(
    file: Annotated[Path, Option("FILE", "An importance matrix.")],
    messages: Annotated[Messages, only("json")],
    model: Annotated[Path | None, Option("[MODEL]", "A Hugging Face folder or a GGUF file to compare it with.")] = None,
    drop_tensor: Annotated[
        tuple[str, ...],
        Option("--drop-tensor", "Leave out tensors of the model, as `convert` does.", MODEL, metavar="REGEX"),
    ] = (),
) -> None:
    """Show what an importance matrix holds, per tensor, and which tensors of a model it does not cover.

    Examples:

    - `gguf-forge imatrix show imatrix.gguf`
    - `gguf-forge imatrix show imatrix.gguf Qwen3-0.6B`
    """
    from gguf_forge.cli.streams import print_data, print_json
    from gguf_forge.recipe import read_imatrix
    from gguf_forge.toolbox.inspect.coverage import covered

    matrix = read_imatrix(file)
    coverage = covered(matrix, *_tensors_of(model, drop_tensor)) if model else None
    if messages.json:
        print_json(_object(matrix, coverage))
    else:
        print_data(*_text(matrix, coverage))


def _tensors_of(model: Path, drop_tensor: Sequence[str]) -> tuple[Sequence[TensorInfo], str]:
    """The tensors and the architecture of a model's GGUF file. For a checkpoint, they are those of the planned file."""
    from gguf_forge.planning.open_model import open_model

    with open_model(model, drop_tensor=drop_tensor) as opened:
        return opened.infos()


def _rows(matrix: ImportanceMatrix) -> list[dict[str, Any]]:
    from gguf_forge.toolbox.inspect.coverage import columns_of_half

    rows = []
    for name, importance in matrix.importance.items():
        calls = matrix.calls[name]
        rows.append(
            {
                "name": name,
                "columns": importance.size // len(calls),
                "experts": len(calls),
                "unused_experts": sum(count <= 0 for count in calls),
                "zero_columns": int((importance == 0).sum()),
                "half_columns": columns_of_half(importance),
                "least_calls": min(calls),
                "most_calls": max(calls),
            }
        )
    return rows


def _object(matrix: ImportanceMatrix, coverage: Coverage | None) -> dict[str, Any]:
    found = {"file": matrix.file, "datasets": matrix.datasets, "chunks": matrix.chunks, "tensors": _rows(matrix)}
    if coverage is not None:
        found |= {"missing": coverage.missing, "misfits": coverage.misfits, "unknown": coverage.unknown}
    return found


def _text(matrix: ImportanceMatrix, coverage: Coverage | None) -> list[Any]:
    counts = ("columns", "half in", "zero", "experts", "unused", "calls")
    table = table_of("tensor", *counts, right=counts, spare=("experts", "unused"))
    rows = _rows(matrix)
    for row in rows:
        calls = {row["least_calls"], row["most_calls"]}
        table.add_row(
            row["name"],
            str(row["columns"]),
            f"{row['half_columns'] / max(1, row['columns'] * row['experts']):.1%}",
            str(row["zero_columns"]),
            str(row["experts"]),
            str(row["unused_experts"]),
            " to ".join(map(str, sorted(calls))),
        )
    facts = {
        "file": matrix.file,
        "datasets": ", ".join(matrix.datasets) or "not recorded",
        "chunks": str(matrix.chunks) if matrix.chunks else "not recorded",
        "tensors": str(len(matrix.importance)),
    }
    zeros = sum(row["zero_columns"] > 0 for row in rows)
    notes = [line((_COLUMNS, "dim")), *([line(_ZEROS.format(zeros))] if zeros else [])]
    notes += [] if coverage is None else [line(words) for words in coverage.lines()]
    return [facts_text(facts), "", table, "", *notes]
