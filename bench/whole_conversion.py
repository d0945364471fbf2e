"""Whole conversions beside llama.cpp's two steps, on a made-up model of TinyLlama's shapes: ratios in one run.

    python bench/whole_conversion.py [--layers 22] [--llama-cpp TREE --reference-python PYTHON --quantize BINARY]

TREE is llama.cpp's source, PYTHON an interpreter with what convert_hf_to_gguf.py needs, BINARY llama-quantize. Without
them only our own side runs, and says so. Times are of one machine at one moment: compare the ratios. The files are
compared as well. Bytes read and written are those of system calls: looking at a mapped file does not count.
"""

from __future__ import annotations

import filecmp
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gguf_forge.cli.demo_checkpoint import Shape, make_model

TYPES = ("Q4_K_M", "Q8_0", "IQ4_XS")
TINY_LLAMA = Shape(n_embd=2048, n_ff=5632, n_head=32, n_head_kv=4, n_vocab=32_000)


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, the most memory it held, bytes that it read and wrote."""

    seconds: float = 0.0
    peak: int = 0
    read: int = 0
    written: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            max(self.peak, other.peak),
            self.read + other.read,
            self.written + other.written,
        )

    def __str__(self) -> str:
        return (
            f"{self.seconds:8.2f} s  peak {self.peak / 2**20:5.0f} MiB  "
            f"read {self.read / 2**20:5.0f} MiB  written {self.written / 2**20:5.0f} MiB"
        )


def run(*command: object) -> Cost:
    """Runs a command to its end; GNU time tells its memory, the system what it read and wrote."""
    timed = ["/usr/bin/time", "-v", *map(str, command)]
    with tempfile.TemporaryFile("w+") as messages:
        begun = time.perf_counter()
        process = subprocess.Popen(timed, stdout=messages, stderr=messages)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # not forgotten yet
        seconds = time.perf_counter() - begun
        moved = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
        code = process.wait()
        messages.seek(0)
        said = messages.read()
    if code:
        sys.exit(f"{' '.join(timed)}\n{said}")
    peak = re.search(r"Maximum resident set size \(kbytes\): (\d+)", said)
    return Cost(seconds, int(peak[1]) << 10 if peak else 0, int(moved["rchar"]), int(moved["wchar"]))


def least(rounds: int, *command: object) -> Cost:
    """Of several runs the fastest one."""
    return min((run(*command) for _ in range(rounds)), key=lambda cost: cost.seconds)


def ours(model: Path, out: Path, kinds: str, threads: int, rounds: int) -> Cost:
    command = (sys.executable, "-m", "gguf_forge", "convert", model, "-o", out, "-t", kinds, "-j", threads)
    return least(rounds, *command, "--overwrite", "--quiet")


def main(
    layers: Annotated[int, typer.Option(help="Of TinyLlama's 22.")] = 22,
    threads: int = 2,
    types: str = ",".join(TYPES),
    rounds: Annotated[int, typer.Option(help="How often each side runs; its fastest run counts.")] = 1,
    llama_cpp: Path | None = None,
    reference_python: Path = Path(sys.executable),
    quantize: Path | None = None,
) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, base, theirs = folder / "Tiny-Llama", folder / "base.gguf", folder / "reference.gguf"
        make_model(model, Shape(**{**vars(TINY_LLAMA), "n_layer": layers}))
        size = (model / "model.safetensors").stat().st_size
        print(f"model: {size / 2**20:.0f} MiB in bf16; {threads} threads; the fastest of {rounds}")
        converting = None
        if llama_cpp is not None and quantize is not None:
            script = llama_cpp / "convert_hf_to_gguf.py"
            converting = least(rounds, reference_python, script, model, "--outfile", base, "--outtype", "bf16")
            print(f"{'reference, convert':<26}{converting}", flush=True)
        else:
            print("llama.cpp's tools were not named: there is nothing to compare with")
        for kind in types.split(","):
            out = folder / f"{kind.lower()}.gguf"
            cost = ours(model, out, kind, threads, rounds)
            print(f"{f'gguf-forge, {kind}':<26}{cost}", flush=True)
            if converting is not None and quantize is not None:
                both = converting + least(rounds, quantize, base, theirs, kind, threads)
                same = "same bytes" if filecmp.cmp(out, theirs, shallow=False) else "OTHER BYTES"
                print(f"{f'reference, both, {kind}':<26}{both}", flush=True)
                print(f"{f'ratio, {kind}':<26}{both.seconds / cost.seconds:8.1f}    {same}", flush=True)
        print(f"{'gguf-forge, all at once':<26}{ours(model, folder / '{ftype}.gguf', types, threads, rounds)}")


if __name__ == "__main__":
    typer.run(main)
