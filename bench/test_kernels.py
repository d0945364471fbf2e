"""Every kernel beside ggml's own, with pytest-benchmark: not part of the suite.

    pip install '.[bench,test]' && pytest -n 0 bench

`-k "Q4_K and avx2"` chooses; `--benchmark-json FILE` keeps the numbers. ggml runs before each round of ours. The
table at the end is of this thread's own time, and of the medians of the ratios: other work slows both.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest

from gguf_forge.kernels import binding
from gguf_forge.kernels.bench import DEQUANTIZE, SOURCES, Ggml, Measurement, thread_seconds, workload, works
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

ROUNDS = 5
KERNELS = [
    pytest.param(kind, work, source, backend, id=f"{kind.name}-{work.replace(' ', '-')}-{source}-{backend}")
    for kind in TENSOR_TYPES.values()
    if kind in binding.quantizable_types()
    for work in works(kind)
    for source in (SOURCES if work != DEQUANTIZE else SOURCES[:1])
    for backend in binding.backends()
]


@pytest.mark.parametrize(("kind", "work", "source", "backend"), KERNELS)
def test_kernel(
    kind: TensorType,
    work: str,
    source: str,
    backend: str,
    ggml: tuple[Ggml, ...],
    copy: float,
    measured: list[Measurement],
    benchmark,
) -> None:
    chosen = workload(kind, work, source, backend, ggml)
    chosen.ours()
    ours: list[float] = []
    theirs: list[float | None] = []
    benchmark.group = f"{kind.name} {work} from {chosen.source}"
    benchmark.pedantic(
        lambda: ours.append(thread_seconds(chosen.ours)),
        setup=lambda: theirs.append(chosen.seconds_of_ggml()),
        rounds=ROUNDS,
    )
    measured.append(chosen.measurement(zip(ours, theirs, strict=True), copy))
    benchmark.extra_info.update(asdict(measured[-1]))
