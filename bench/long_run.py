"""Compares the kernels with ggml over as many random values as asked, for every type and backend.

    python bench/long_run.py --millions 100

Values come from six distributions, as f32, and as f32 born from f16 and bf16 (those are also given to the kernels in
that dtype); with and without importance. All combinations have had their turn after ten million. Prints a table;
exits with 1 if any byte differs from the first oracle's. Where the oracles themselves differ the byte is counted as
disputed. For the i-quants ggml takes nearly all of the time: --remember keeps its answers for the next run.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "kernels"))
from kernel_oracles import ORACLES, Oracle, find_oracle, oracle_names

from gguf_forge.kernels import binding
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

ROWS, COLUMNS = 32, 8 * 1024  # 2^18 values at a time


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
    born = (number // 12 + number) % 3
    if born == 1:
        narrow = values.astype(np.float16)
        return narrow.astype(np.float32), narrow
    if born == 2:
        narrow = (values.view(np.uint32) >> 16).astype(np.uint16)
        return (narrow.astype(np.uint32) << 16).view(np.float32), narrow
    return values, values


def drawn_importance(random: np.random.Generator, number: int) -> np.ndarray:
    drawn = random.standard_t(3, COLUMNS).astype(np.float32) ** 2
    if number % 3 == 1:
        drawn[random.random(COLUMNS) < 0.3] = 0
    if number % 3 == 2:
        drawn = np.exp2(random.integers(-40, 20, COLUMNS)).astype(np.float32)
    return drawn


@dataclass
class Count:
    """Bytes of one type and backend: compared, and found different from both oracles or from one of them."""

    values: int = 0
    weighted: int = 0
    compared: int = 0
    wrong: int = 0
    disputed: int = 0  # the oracles differ from each other, and we give what the older one gives

    def compare(self, ours: np.ndarray, oracles: list[np.ndarray]) -> None:
        wrong = ours != oracles[0]
        disputed = np.any([other != oracles[0] for other in oracles[1:]], axis=0) & ~wrong
        self.compared += ours.nbytes
        self.wrong += int(wrong.sum())
        self.disputed += int(disputed.sum())


def answers(
    kind: TensorType, values: np.ndarray, importance: np.ndarray | None, oracles: list[Oracle], memory: Path | None
) -> list[np.ndarray]:
    """What each oracle makes of the values; from the file `memory`, if it is there."""
    if memory is not None and memory.exists():
        return list(np.load(memory))
    packed = [ggml.quantize(values, kind, importance) for ggml in oracles]
    if memory is not None:
        np.save(memory, np.stack(packed))
    return packed


def run(
    kind: TensorType, backends: list[str], oracles: list[Oracle], millions: int, seed: int, memory: Path | None
) -> list[Count]:
    """Counts by backend. ggml is asked once for all of them: for some types it takes most of the time."""
    random, counts, number = np.random.default_rng(seed), [Count() for _ in backends], 0
    while counts[0].values < millions * 1_000_000:
        values, born = batch(random, number)
        weighted = (number // 6 + number) % 2 == 1 or kind in binding.types_needing_importance()
        importance = drawn_importance(random, number // 2) if weighted else None
        file = memory / f"{kind.name}-{seed}-{number}.npy" if memory is not None else None
        expected = answers(kind, values, importance, oracles, file)
        floats = [] if kind.name == "F32" else [ggml.dequantize(expected[0], kind) for ggml in oracles]
        for backend, count in zip(backends, counts, strict=True):
            ours = np.empty_like(expected[0])
            binding.quantize_rows(born, kind, ours, importance=importance, backend=backend)
            count.compare(ours, expected)
            if floats:
                unpacked = np.empty(values.shape, np.float32)
                binding.dequantize_rows(expected[0], kind, unpacked, backend=backend)
                count.compare(unpacked.view(np.uint8), [theirs.view(np.uint8) for theirs in floats])
            count.values += values.size
            count.weighted += values.size if weighted else 0
        number += 1
    return counts


def main(
    millions: Annotated[int, typer.Option(help="Millions of values for each type and backend.")] = 10,
    types: Annotated[str, typer.Option(help="Comma-separated; all if empty.")] = "",
    backends: Annotated[str, typer.Option(help="Comma-separated; all of this machine if empty.")] = "",
    seed: int = 1,
    remember: Annotated[Path | None, typer.Option(help="A folder for ggml's answers, used again if there.")] = None,
) -> None:
    chosen = types.upper().split(",") if types else list(TENSOR_TYPES)
    kinds = [TENSOR_TYPES[name] for name in chosen if TENSOR_TYPES[name] in binding.quantizable_types()]
    if any(find_oracle(name) is None for name in ORACLES):
        raise SystemExit(f"this needs x86-64, and the packages {', '.join(ORACLES)}")
    wrong = 0
    print("type     backend          values      weighted  bytes compared   differing  disputed  seconds")
    chosen_backends = backends.split(",") if backends else list(binding.backends())
    for kind in kinds:
        start = time.perf_counter()
        oracles = [ggml for ggml in map(find_oracle, oracle_names(kind)) if ggml is not None]
        counts = run(kind, chosen_backends, oracles, millions, seed, remember)
        seconds = time.perf_counter() - start
        for backend, count in zip(chosen_backends, counts, strict=True):
            row = f"{kind.name:8} {backend:9} {count.values:13,} {count.weighted:13,} {count.compared:15,}"
            print(f"{row} {count.wrong:11,} {count.disputed:9,} {seconds:8.1f}", flush=True)
            wrong += count.wrong
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
