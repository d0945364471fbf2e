"""`gguf-forge bench`: how fast this machine quantizes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.cli.help import MACHINE
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.tables import facts_text, line, table_of
from gguf_forge.option import RUNNING, Option, parse_names

if TYPE_CHECKING:
    from gguf_forge.kernels.bench import BenchReport, Measurement


def register(app: typer.Typer) -> None:
    add_command(app, "bench", bench, panel=MACHINE)


def bench(
    messages: Annotated[Messages, only("json", "quiet")],
    types: Annotated[
        tuple[str, ...],
        Option(
            "-t --type",
            "Tensor types, with commas. [default: all]",
            RUNNING,
            metavar="TYPE",
            parse=parse_names,
            values="tensor types",
        ),
    ] = (),
    backends: Annotated[
        tuple[str, ...],
        Option(
            "--backend",
            "Which kernels, with commas. [default: the fastest]",
            RUNNING,
            metavar="NAME",
            parse=parse_names,
            values="backends",
        ),
    ] = (),
    sources: Annotated[
        tuple[str, ...],
        Option(
            "--source", "f32, f16 or bf16, with commas. [default: f32]", RUNNING, metavar="DTYPE", parse=parse_names
        ),
    ] = (),
    rounds: Annotated[
        int, Option("--rounds", "How often each kernel is timed. [default: 5]", RUNNING, metavar="N", least=1)
    ] = 5,
) -> None:
    """Measure the kernels on this machine, with one thread, next to ggml's own if a wheel that has them is installed.

    Unpacking is measured in memory, as in a conversion, where copying bounds it; docs/performance.md measures it in
    cache. Both sides run once before they are timed.

    Examples:

    - `gguf-forge bench -t Q4_K,Q8_0`
    - `gguf-forge bench --backend portable,avx2 --source f32,bf16 --json`
    """
    from gguf_forge.cli.streams import print_data, print_json, tell
    from gguf_forge.kernels.bench import measure

    def say(done: Measurement, number: int, total: int) -> None:
        if not messages.quiet:
            words = f"{number} of {total}: {done.kind} {done.work} from {done.source}, {done.backend}"
            tell(line((words, "dim")))

    report = measure(types, backends=backends, sources=sources or ("f32",), rounds=rounds, progress=say)
    if messages.json:
        print_json(report.as_dict())
    else:
        print_data(*_text(report))


def _text(report: BenchReport) -> Iterable[Any]:
    speeds = ("M values/s", "GB/s read", "speedup vs ggml", "% of memcpy")
    table = table_of("type", "work", "from", "backend", *speeds, right=speeds, spare=("% of memcpy", "GB/s read"))
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
        "data": "unpacking writes 67 MB, more than most caches hold; quantizing reads 1 to 67 MB",
        "memory copy": f"{report.copy_gigabytes_per_second:.1f} GB/s",
        "ggml": ", ".join(report.ggml) or "not installed: pip install pywhispercpp gives one to compare with",
    }
    return facts_text(facts), "", table
