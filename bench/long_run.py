"""Compares the kernels with ggml over as many random values as asked, for every type and backend.

    python bench/long_run.py --millions 100

Values come from six distributions in turn, as f32, and as f32 born from f16 and bf16 (those are also given to
the kernels in that dtype); with and without importance. Prints a table; exits with 1 if any byte differs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "kernels"))
from kernel_oracles import ORACLES, Oracle, find_oracle

from gguf_forge import kernels
from gguf_forge.tensor_types import TENSOR_TYPES, TensorType

ROWS, COLUMNS = 128, 8 * 1024  # 2^20 values at a time


def batch(random: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Values as float32, and the same in the dtype they were born in."""
    shape = (ROWS, COLUMNS)
    values = {
        0: lambda: random.standard_normal(shape, np.float32) * 0.02,
        1: lambda: random.standard_t(3, shape).astype(np.float32),
        2: lambda: random.random(shape, np.float32) - 0.5,
        3: lambda: random.laplace(size=shape).astype(np.float32),
        4: lambda: random.standard_normal(shape, np.float32) * np.exp2(random.integers(-30, 12, (ROWS, 1))),
        5: lambda: random.standard_normal(shape, np.float32) * (random.random(shape, np.float32) < 0.3),
    }[number % 6]().astype(np.float32)
    born = number // 6 % 3
    if born == 1:
        narrow = values.astype(np.float16)
        return narrow.astype(np.float32), narrow
    if born == 2:
        narrow = (values.view(np.uint32) >> 16).astype(np.uint16)
        return (narrow.astype(np.uint32) << 16).view(np.float32), narrow
    return values, values


def importance(random: np.random.Generator, number: int) -> np.ndarray:
    weights = random.standard_t(3, COLUMNS).astype(np.float32) ** 2
    if number % 3 == 1:
        weights[random.random(COLUMNS) < 0.3] = 0
    if number % 3 == 2:
        weights = np.exp2(random.integers(-40, 20, COLUMNS)).astype(np.float32)
    return weights


def differing_bytes(
    kind: TensorType,
    backend: str,
    ggml: Oracle,
    values: np.ndarray,
    born: np.ndarray,
    weights: np.ndarray | None,
) -> int:
    expected = ggml.quantize(values, kind, weights)
    ours = np.empty_like(expected)
    kernels.quantize_rows(born, kind, ours, weights=weights, backend=backend)
    wrong = int((ours != expected).sum())
    if kind.name != "F32":
        unpacked = np.empty(values.shape, np.float32)
        kernels.dequantize_rows(expected, kind, unpacked, backend=backend)
        wrong += int((unpacked.view(np.uint32) != ggml.dequantize(expected, kind).view(np.uint32)).sum())
    return wrong


def main(
    millions: Annotated[int, typer.Option(help="Millions of values for each type, backend and oracle.")] = 10,
    types: Annotated[str, typer.Option(help="Comma-separated; all if empty.")] = "",
    backends: Annotated[str, typer.Option(help="Comma-separated; all of this machine if empty.")] = "",
    oracles: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(ORACLES),
    seed: int = 1,
) -> None:
    chosen = types.upper().split(",") if types else list(TENSOR_TYPES)
    kinds = [TENSOR_TYPES[name] for name in chosen if TENSOR_TYPES[name] in kernels.quantizable_types()]
    total_wrong = 0
    print("type     backend   oracle               values      weighted differing  seconds")
    row = "{:8} {:9} {:13} {:13,} {:13,} {:9} {:8.1f}"
    for kind in kinds:
        for backend in backends.split(",") if backends else kernels.backends():
            for oracle_name in oracles.split(","):
                ggml = find_oracle(oracle_name)
                if ggml is None:
                    raise SystemExit(f"{oracle_name} is not installed here")
                random, start = np.random.default_rng(seed), time.perf_counter()
                wrong = done = weighted = 0
                while done < millions * 1_000_000:
                    number = done // (ROWS * COLUMNS)
                    values, born = batch(random, number)
                    weights = importance(random, number // 2) if number % 2 else None
                    wrong += differing_bytes(kind, backend, ggml, values, born, weights)
                    done += values.size
                    weighted += values.size if number % 2 else 0
                seconds = time.perf_counter() - start
                print(row.format(kind.name, backend, oracle_name, done, weighted, wrong, seconds), flush=True)
                total_wrong += wrong
    raise SystemExit(1 if total_wrong else 0)


if __name__ == "__main__":
    typer.run(main)
