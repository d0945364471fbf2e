"""Counts the instructions that NEON's kernels take for each value: there may be no Arm machine to time them on.

    make build/rows/neon && python bench/neon_instructions.py

The emulator runs one instruction at a time and logs those of the backends' code, so calls into the C library and
the making of tables do not count. A count is the difference between two runs, one over a row more than the other.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "emulated"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "kernels"))
from emulated_kernels import Job
from kernel_inputs import case, case_importance

from gguf_forge.kernels import binding
from gguf_forge.types.tensor_type import TENSOR_TYPES, ImportanceUse

COLUMNS = 2048
LOGGED = ["-singlestep", "-d", "exec,nochain", "-D", "/dev/stderr", "-dfilter"]


def backend_code(nm: str, program: str) -> str:
    """The addresses of the backends' functions, which lie together, as the emulator wants them."""
    listed = subprocess.run([nm, "-n", program], capture_output=True, text=True, check=True).stdout
    symbols = [line.split() for line in listed.splitlines()]
    first = next(address for address, _, name in symbols if "quantize_" in name)
    last = next(address for address, _, name in symbols if name == "forge_backend_name")
    return f"0x{first}..0x{last}"


def executed(emulator: str, program: str, code: str, backend: str, job: Job) -> int:
    """Instructions of one run, of those at the addresses `code`."""
    process = subprocess.Popen(
        [*shlex.split(emulator), *LOGGED, code, program, backend],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stderr
    process.stdin.write(job.header_and_data())
    process.stdin.close()
    lines = sum(chunk.count(b"\n") for chunk in iter(lambda: process.stderr.read(1 << 20), b""))
    if process.wait():
        raise SystemExit(f"{program} failed")
    return lines


def jobs(name: str, rows: int) -> Iterator[tuple[str, Job]]:
    kind = TENSOR_TYPES[name]
    x, importance = case("gaussian", rows, COLUMNS), case_importance("importance", COLUMNS)
    if kind not in binding.types_needing_importance():
        yield "pack", Job(kind, x)
    if kind.importance >= ImportanceUse.USED:
        yield "pack weighted", Job(kind, x, importance)
    packed = np.empty((rows, kind.row_bytes(COLUMNS)), np.uint8)
    binding.quantize_rows(x, kind, packed, importance=importance)
    yield "unpack", Job(kind, packed)


def main(
    types: Annotated[str, typer.Option(help="Comma-separated; all if empty.")] = "",
    backends: Annotated[str, typer.Option(help="Comma-separated.")] = "portable,neon",
    emulator: str = "qemu-aarch64-static",
    program: str = "build/rows/neon",
    nm: str = "aarch64-linux-gnu-nm",
) -> None:
    code = backend_code(nm, program)
    chosen = types.upper().split(",") if types else [kind.name for kind in TENSOR_TYPES.values()]
    print("instructions a value")
    print("type     work          " + "".join(f"{backend:>10}" for backend in backends.split(",")))
    for name in chosen:
        if TENSOR_TYPES[name] not in binding.quantizable_types():
            continue
        unpacking = {}
        for (work, few), (_, many) in zip([*jobs(name, 1)][::-1], [*jobs(name, 2)][::-1], strict=True):
            counts = []
            for backend in backends.split(","):
                more, less = (executed(emulator, program, code, backend, job) for job in (many, few))
                each = (more - less) / COLUMNS
                unpacking.setdefault(backend, each)
                counts.append(each if work == "unpack" else each - unpacking[backend])
            print(f"{name:8} {work:14}" + "".join(f"{count:10.1f}" for count in counts), flush=True)


if __name__ == "__main__":
    typer.run(main)
