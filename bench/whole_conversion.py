"""Whole conversions beside llama.cpp's two steps, on a made-up model of TinyLlama's shapes: ratios in one run.

    python bench/whole_conversion.py [--layers 22] [--llama-cpp TREE --reference-python PYTHON --quantize BINARY]

TREE is llama.cpp's source, PYTHON an interpreter with what convert_hf_to_gguf.py needs, BINARY llama-quantize. Without
them only our own side runs, and says so. Times are of one machine at one moment: compare the ratios.
"""

from __future__ import annotations

import filecmp
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gguf_forge.demo import Shape, make_model

TYPES = ("Q4_K_M", "Q8_0")


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, and the most memory it held."""

    seconds: float
    peak_bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, max(self.peak_bytes, other.peak_bytes))

    def __str__(self) -> str:
        return f"{self.seconds:8.2f} s {self.peak_bytes / 2**20:8.0f} MiB"


def run(*command: object) -> Cost:
    """Runs a command to its end; GNU time tells its memory."""
    timed = ["/usr/bin/time", "-v", *map(str, command)]
    begun = time.perf_counter()
    done = subprocess.run(timed, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{' '.join(timed)}\n{done.stdout}\n{done.stderr}")
    peak = re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr)
    return Cost(seconds, int(peak[1]) << 10 if peak else 0)


def ours(model: Path, out: Path, kind: str, threads: int) -> Cost:
    command = (sys.executable, "-m", "gguf_forge", "convert", model, "-o", out, "-t", kind, "-j", threads)
    return run(*command, "--overwrite", "--quiet")


def main(
    layers: Annotated[int, typer.Option(help="Of TinyLlama's 22.")] = 22,
    threads: int = 2,
    types: str = ",".join(TYPES),
    llama_cpp: Path | None = None,
    reference_python: Path = Path(sys.executable),
    quantize: Path | None = None,
) -> None:
    """See the module."""
    shape = Shape(n_embd=2048, n_ff=5632, n_layer=layers, n_head=32, n_head_kv=4)
    with tempfile.TemporaryDirectory() as scratch:
        model, base = Path(scratch) / "Tiny-Llama", Path(scratch) / "base.gguf"
        make_model(model, shape)
        size = (model / "model.safetensors").stat().st_size
        print(f"model: {size / 2**20:.0f} MiB in bf16; {threads} threads")
        converting = None
        if llama_cpp is not None and quantize is not None:
            script = llama_cpp / "convert_hf_to_gguf.py"
            converting = run(reference_python, script, model, "--outfile", base, "--outtype", "bf16")
            print(f"reference, convert           {converting}   writes {base.stat().st_size / 2**20:.0f} MiB")
        else:
            print("llama.cpp's tools were not named: there is nothing to compare with")
        for kind in types.split(","):
            out = Path(scratch) / f"{kind}.gguf"
            cost = ours(model, out, kind, threads)
            print(f"gguf-forge, {kind:<8}         {cost}   writes {out.stat().st_size / 2**20:.0f} MiB")
            if converting is not None and quantize is not None:
                theirs = Path(scratch) / "reference.gguf"
                both = converting + run(quantize, base, theirs, kind, threads)
                same = "same bytes" if filecmp.cmp(out, theirs, shallow=False) else "OTHER BYTES"
                print(f"reference, both steps, {kind:<6} {both}   ratio {both.seconds / cost.seconds:.1f}, {same}")


if __name__ == "__main__":
    typer.run(main)
