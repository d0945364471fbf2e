"""`gguf-forge compare`: how far two GGUF files are apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.cli.help import LOOK
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.tables import facts_text, line, table_of
from gguf_forge.cli.token_check import MISMATCH
from gguf_forge.option import MESSAGES, Option
from gguf_forge.run_settings import RunSettings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gguf_forge.cli.tables import Table
    from gguf_forge.gguf_file.tensor_info import TensorInfo
    from gguf_forge.toolbox.inspect.compare import Comparison, TensorComparison
    from gguf_forge.toolbox.inspect.measure import Distance, OverallDistance

_COMPARED = "What is compared"


def register(app: typer.Typer) -> None:
    add_command(app, "compare", compare, panel=LOOK)


def compare(
    a: Annotated[Path, Option("A", "A GGUF file, or the first one of a split.")],
    b: Annotated[Path, Option("B", "The GGUF file to compare with A. The errors shown are those of B.")],
    run: Annotated[RunSettings, only("threads")],
    messages: Messages,
    only_tensors: Annotated[
        bool, Option("--only-tensors", "Leave out the metadata, and the order of tensors.", _COMPARED)
    ] = False,
    all: Annotated[bool, Option("--all", "Also list the tensors that are the same.", MESSAGES)] = False,
) -> None:
    """Compare two GGUF files: their keys, and how far each tensor of B is from that of A.

    The exit code is 0 if they are the same and 7 if they are not. How they are split does not matter.

    The error of a tensor is its RMSE, divided by the RMS of the tensor in A (the column "relative RMSE"). The error of
    a block, in JSON, is the RMSE of the block, divided by the same RMS of the whole tensor.

    Examples:

    - `gguf-forge compare model-BF16.gguf model-Q4_K_M.gguf`
    - `gguf-forge compare theirs.gguf ours.gguf --only-tensors --quiet && echo same`
    - `gguf-forge compare a.gguf b.gguf --json | jq '.tensors[] | select(.likeness != "same") | {name, distance}'`
    """
    from gguf_forge.cli.progress import counting
    from gguf_forge.cli.streams import print_data, print_json
    from gguf_forge.gguf_file.opened import open_gguf
    from gguf_forge.toolbox.inspect.compare import compare_gguf

    with open_gguf(a, lenient=True) as gguf:
        size = sum(tensor.nbytes for tensor in gguf.tensors)
    with counting("comparing", size, messages) as progress:
        found = compare_gguf(a, b, only_tensors=only_tensors, threads=run.threads, progress=progress)
    if messages.json:
        print_json(_object(found))
    elif not messages.quiet:
        print_data(*_text(found, with_all=all))
    if not found.same:
        raise typer.Exit(MISMATCH)


def _object(found: Comparison) -> dict[str, Any]:
    """Rows, columns and blocks count from 0. Keys are those of A ("expected") and of B ("found")."""
    from gguf_forge.cli.key_differences import key_object

    return {
        "same": found.same,
        "a": str(found.a),
        "b": str(found.b),
        "metadata": [key_object(each) for each in found.keys],
        "split_keys": found.split_keys,
        "same_order": found.order,
        "overall": None if found.overall is None else _overall_object(found.overall),
        "tensors": [
            {
                "name": each.name,
                "likeness": each.likeness.value,
                "a": _info_object(each.a),
                "b": _info_object(each.b),
                "distance": None if each.distance is None else _distance_object(each.distance),
            }
            for each in found.tensors
        ],
    }


def _overall_object(overall: OverallDistance) -> dict[str, Any]:
    return {"relative": overall.relative, "snr_db": overall.snr}


def _info_object(info: TensorInfo | None) -> dict[str, Any] | None:
    return None if info is None else {"type": info.type.name, "shape": info.shape, "nbytes": info.nbytes}


def _distance_object(distance: Distance) -> dict[str, Any]:
    place, worst = distance.max_error_at, distance.worst
    return {
        "values": distance.count,
        "nonfinite": distance.nonfinite,
        "differing": distance.differing,
        "rmse": distance.rmse,
        "relative": distance.relative,
        "bias": distance.bias,
        "max_error": distance.max_error,
        "max_error_at": None if place is None else {"row": place[0], "column": place[1]},
        "cosine": distance.cosine,
        "snr_db": distance.snr,
        "worst_block": None if worst is None else {**vars(worst), "relative": distance.worst_relative},
    }


def _text(found: Comparison, *, with_all: bool) -> Iterator[RenderableType]:
    from gguf_forge.cli.key_differences import keys_table

    counts = Counter(each.likeness.value for each in found.tensors)
    word = ("the same", "bold green") if found.same else ("different", "bold red")
    yield line(word)
    yield facts_text(
        {
            "A": str(found.a),
            "B": str(found.b),
            "tensors": ", ".join(f"{count} {what}" for what, count in counts.items()) or "none",
            "metadata": _number_of_differences(len(found.keys)) + _of_split(found),
            **({} if found.overall is None else {"overall": _overall_text(found.overall)}),
            **({} if found.order else {"order": "the tensors are in another order"}),
        }
    )
    shown = [each for each in found.tensors if with_all or each.likeness.value != "same"]
    if shown:
        yield from ("", _table(shown))
    if found.keys:
        yield from ("", keys_table(found.keys, "A", "B"))


def _number_of_differences(count: int) -> str:
    return f"{count or 'no'} difference{'s' if count > 1 else ''}"


def _of_split(found: Comparison) -> str:
    names = ", ".join(found.split_keys)
    return f" but in {names}, which say how a file is split" if names else ""


def _overall_text(overall: OverallDistance) -> str:
    """The error of all tensors that differ, as one figure by which two files of one model can be ranked."""
    if overall.relative is None:
        return "A is zero everywhere, and B is not"
    decibels = "" if overall.snr is None else f" ({overall.snr:.1f} dB)"
    return f"relative RMSE {overall.relative:.2%}{decibels}, of the tensors that differ"


def _table(rows: list[TensorComparison]) -> Table:
    distances = ("RMSE", "relative RMSE", "max error", "cosine", "SNR dB")
    spare = ("cosine", "max error", "result", "RMSE")
    table = table_of("tensor", "A", "B", "result", *distances, right=distances, spare=spare)
    for each in rows:
        types = [_described(info, other) for info, other in ((each.a, each.b), (each.b, each.a))]
        table.add_row(each.name, *types, each.likeness.value, *_numbers(each.distance))
    return table


def _described(info: TensorInfo | None, other: TensorInfo | None) -> str:
    """The tensor's type, and also its shape where the shape in the other file differs."""
    if info is None:
        return ""
    shape = " x ".join(map(str, info.shape))
    return info.type.name if other is None or info.shape == other.shape else f"{info.type} {shape}"


def _numbers(distance: Distance | None) -> tuple[str, ...]:
    if distance is None:
        return ("",) * 5
    relative, snr = distance.relative, distance.snr
    return (
        f"{distance.rmse:.3g}",
        "" if relative is None else f"{relative:.2%}",
        f"{distance.max_error:.3g}",
        f"{distance.cosine:.6f}",
        "" if snr is None else f"{snr:.1f}",
    )
