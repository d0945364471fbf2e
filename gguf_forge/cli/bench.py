"""`gguf-forge bench`: how fast this machine quantizes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.cli.options import RUNNING, Json, Quiet, add_command, type_names, value
from gguf_forge.cli.tables import facts_text, table_of

if TYPE_CHECKING:
    from gguf_forge.kernels.bench import BenchReport, Measurement

_NAMES = list[str] | None


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """The command line of `bench`."""

    type: Annotated[
        _NAMES,
        value("-t", "--type", metavar="TYPE", panel=RUNNING, help="Tensor types, with commas. [default: all]"),
    ] = None
    backend: Annotated[
        _NAMES,
        value("--backend", metavar="NAME", panel=RUNNING, help="Which kernels, with commas. [default: the fastest]"),
    ] = None
    source: Annotated[
        _NAMES,
        value("--source", metavar="DTYPE", panel=RUNNING, help="f32, f16 or bf16, with commas. [default: f32]"),
    ] = None
    rounds: Annotated[
        int, value("--rounds", metavar="N", panel=RUNNING, help="How often each kernel is timed. [default: 5]", min=1)
    ] = 5
    json: Json = False
    quiet: Quiet = False


def register(app: typer.Typer) -> None:
    add_command(app, "bench", BenchRequest, bench)


def bench(request: BenchRequest) -> None:
    """Measure the kernels on this machine, one thread: beside ggml's own if a wheel with it is installed.

    Examples:

    - `gguf-forge bench -t Q4_K,Q8_0`
    - `gguf-forge bench --backend portable,avx2 --source f32,bf16 --json`
    """
    from gguf_forge.cli.streams import console, print_data, print_json
    from gguf_forge.kernels.bench import measure

    to = console(sys.stderr)

    def tell(done: Measurement) -> None:
        if not request.quiet:
            to.print(f"{done.kind} {done.work} from {done.source}, {done.backend}", style="dim")

    report = measure(
        type_names(request.type) or (),
        backends=type_names(request.backend) or (),
        sources=type_names(request.source) or ("f32",),
        rounds=request.rounds,
        progress=tell,
    )
    if request.json:
        print_json(report.as_dict())
    else:
        print_data(*_text(report))


def _text(report: BenchReport) -> Iterable[Any]:

    speeds = ("M values/s", "GB/s read", "x ggml", "of copying")
    table = table_of("type", "work", "from", "backend", *speeds, right=speeds)
    for done in report.measurements:
        table.add_row(
            done.kind,
            done.work,
            done.source,
            done.backend,
            f"{done.million_values_per_second:.0f}",
            f"{done.gigabytes_read_per_second:.2f}",
            f"{done.ratio_to_ggml:.1f}" if done.ratio_to_ggml is not None else "-",
            f"{done.ratio_to_copy:.0%}",
        )
    facts = {
        "processor": report.cpu,
        "memory copy": f"{report.copy_gigabytes_per_second:.1f} GB/s",
        "ggml": ", ".join(report.ggml) or "not installed: pip install pywhispercpp gives one to compare with",
    }
    return facts_text(facts), "", table
