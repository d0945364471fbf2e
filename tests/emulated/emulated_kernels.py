"""The kernels in a program of their own, `rows.c`, under an emulator: see `make neon` and `make valgrind`."""

from __future__ import annotations

import shlex
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.types.tensor_type import TensorType

Bytes = NDArray[np.uint8]
# Numbers of the enum in rows.c, by dtype; packed rows are bytes.
SOURCES = {"float32": 0, "float16": 1, "uint16": 2, "uint8": -1}


@dataclass(frozen=True)
class Job:
    """Rows (n_rows, n) to pack and to unpack again; of uint8, packed rows only to unpack."""

    kind: TensorType
    rows: NDArray[np.generic]
    importance: NDArray[np.float32] | None = None

    @property
    def packed(self) -> bool:
        return self.rows.dtype == np.uint8

    @property
    def shape(self) -> tuple[int, int]:
        """Of the values."""
        n_rows, n = self.rows.shape
        return n_rows, n // self.kind.block_bytes * self.kind.block_elements if self.packed else n

    def header_and_data(self) -> bytes:
        n_rows, n = self.shape
        sizes = n_rows, n, self.rows.nbytes, n_rows * self.kind.row_bytes(n)
        header = struct.pack(
            "<iiqqqqq", self.kind.id, SOURCES[self.rows.dtype.name], self.importance is not None, *sizes
        )
        return header + self.rows.tobytes() + (b"" if self.importance is None else self.importance.tobytes())


@dataclass(frozen=True)
class Answer:
    """What one backend makes of a job."""

    packed: Bytes | None
    values: NDArray[np.float32]
    finite: bool


def backends(command: str) -> tuple[str, ...]:
    """Those that the emulated machine can run, the portable one first."""
    listed = subprocess.run([*shlex.split(command), "--backends"], stdout=subprocess.PIPE, text=True, check=True)
    return tuple(listed.stdout.split())


def products(command: str, b: NDArray[np.float32], a: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The product of two factors, as each backend makes it."""
    n_rows, n_ranks, n_columns = *b.shape, a.shape[1]
    data = struct.pack("<qqq", n_rows, n_ranks, n_columns) + b.tobytes() + a.tobytes()
    done = subprocess.run([*shlex.split(command), "--product"], input=data, stdout=subprocess.PIPE, check=True)
    return list(np.frombuffer(done.stdout, np.float32).reshape(-1, n_rows, n_columns))


def run(command: str, jobs: Sequence[Job], n_backends: int) -> list[list[Answer]]:
    """For each job, the answer of each of that many backends."""
    data = b"".join(job.header_and_data() for job in jobs)
    done = subprocess.run(shlex.split(command), input=data, stdout=subprocess.PIPE, check=True)
    out, at = np.frombuffer(done.stdout, np.uint8), 0

    def take(size: int) -> Bytes:
        nonlocal at
        at += size
        return out[at - size : at]

    def answer(job: Job) -> Answer:
        n_rows, n = job.shape
        size = n_rows * job.kind.row_bytes(n)
        packed = None if job.packed else take(size).reshape(n_rows, -1)
        values = take(4 * n_rows * n).copy().view(np.float32).reshape(n_rows, n)
        return Answer(packed, values, bool(take(1)[0]))

    answers = [[answer(job) for _ in range(n_backends)] for job in jobs]
    assert at == out.size
    return answers
