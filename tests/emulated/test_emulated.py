"""The kernels on an emulated machine, against each other and this machine's portable ones.

`make neon` runs these for AArch64, which most of us don't have; `make valgrind` under a memory checker. The portable
backend of this machine is ggml's equal (tests/kernels), so what equals it is, too.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from emulated_kernels import Answer, Job, backends, products, run
from kernel_inputs import CASES, IMPORTANCE, case, case_importance

from gguf_forge.kernels import binding
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

COMMAND = os.environ.get("FORGE_ROWS", "")
FUSED_COMMAND = os.environ.get("FORGE_FUSED_ROWS", "")
BACKENDS = backends(COMMAND) if COMMAND else ()
TYPES = sorted((kind.name for kind in binding.quantizable_types()), key=list(TENSOR_TYPES).index)
LANES = (4, 8, 16)  # of a vector, and of a tile of two vectors
COUNTS = sorted({1, 31} | {n for w in LANES for n in (w - 1, w, w + 1, 2 * w + 1)})

pytestmark = pytest.mark.skipif(not COMMAND, reason="`make neon` and `make valgrind` run these")
every_type = pytest.mark.parametrize("name", TYPES)


def importance_choices(kind: TensorType, n: int, names: list[str]) -> list[np.ndarray | None]:
    """Without importance, where the type does without, and with those named."""
    none = [] if kind in binding.types_needing_importance() else [None]
    return [*none, *(case_importance(name, n) for name in names)]


def narrowed(x: np.ndarray) -> list[np.ndarray]:
    """As float32, float16 and the bits of bfloat16."""
    with np.errstate(over="ignore"):
        half = x.astype(np.float16)
    half[~np.isfinite(half)] = 1
    return [x, half, (x.view(np.uint32) >> 16).astype(np.uint16)]


def here(job: Job) -> Answer:
    """What this machine's portable backend makes of it."""
    values = np.empty(job.shape, np.float32)
    packed = None if job.packed else np.empty((len(values), job.kind.row_bytes(values.shape[1])), np.uint8)
    if packed is None:
        finite = binding.is_finite(job.rows, job.kind, backend="portable")
    else:
        finite = binding.quantize_rows(job.rows, job.kind, packed, importance=job.importance, backend="portable")
    binding.dequantize_rows(job.rows if packed is None else packed, job.kind, values, backend="portable")
    return Answer(packed, values, finite)


def same_values(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit; a NaN is a NaN, because its sign and payload are the machine's choice."""
    number = ~np.isnan(a)
    return np.array_equal(number, ~np.isnan(b)) and np.array_equal(a[number].view(np.uint32), b[number].view(np.uint32))


def same_packed(kind: TensorType, ours: Answer, expected: Answer) -> bool:
    """Bit for bit; but the sign of a scale that overflowed to NaN is the machine's choice."""
    blocks = (*expected.values.shape[:1], -1)
    broken = np.isnan(expected.values).reshape(*blocks, kind.block_elements).any(axis=2)
    different = (ours.packed ^ expected.packed).reshape(*blocks, kind.block_bytes)
    return not different[~broken].any() and not (different & 0x7F).any()


def same(kind: TensorType, ours: Answer, expected: Answer) -> bool:
    packed = expected.packed is None or same_packed(kind, ours, expected)
    return packed and ours.finite == expected.finite and same_values(ours.values, expected.values)


def check(jobs: list[Job]) -> None:
    wrong = []
    for index, (job, (portable, *others)) in enumerate(zip(jobs, run(COMMAND, jobs, len(BACKENDS)), strict=True)):
        if not same(job.kind, portable, here(job)):
            wrong.append((index, "portable, unlike this machine's"))
        for backend, other in zip(BACKENDS[1:], others, strict=True):
            if not job.packed and not np.array_equal(other.packed, portable.packed):
                wrong.append((index, f"{backend}: packed rows"))
            if other.finite != portable.finite:
                wrong.append((index, f"{backend}: whether it is finite"))
            if not same_values(other.values, portable.values):
                wrong.append((index, f"{backend}: values"))
    assert not wrong


def test_the_machine_has_more_than_the_portable_backend():
    assert BACKENDS[0] == "portable"
    assert len(BACKENDS) > 1


@every_type
def test_every_case_and_importance(name):
    kind = TensorType.named(name)
    check([Job(kind, case(c, 6, 768), w) for c in CASES for w in importance_choices(kind, 768, list(IMPORTANCE))])


@every_type
def test_narrow_sources(name):
    kind = TensorType.named(name)
    rows = np.concatenate([case(c, 1, 768) for c in ("heavy", "sparse", "random_floats", "denormals", "ties")])
    check([Job(kind, x, w) for x in narrowed(rows) for w in importance_choices(kind, 768, ["importance"])])


@every_type
def test_block_counts_around_the_lane_count(name):
    kind = TensorType.named(name)
    n = max(32, kind.block_elements)
    shapes = sorted({(count, 1) for count in COUNTS} | {(1, count) for count in COUNTS} | {(5, 3), (3, 5)})
    check(
        [
            Job(kind, x, w)
            for rows, blocks in shapes
            for x in narrowed(case("heavy", rows, n * blocks))
            for w in importance_choices(kind, n * blocks, ["with_zeros"])[-2:]
        ]
    )


@every_type
def test_long_random_rows(name):
    kind = TensorType.named(name)
    rows = case("heavy", 24, 2048).view(np.uint32).reshape(-1)
    values = np.sqrt(np.abs(rows.view(np.float32))).reshape(24, 2048) * case("gaussian", 24, 2048)
    check([Job(kind, values, w) for w in importance_choices(kind, 2048, ["importance"])])


@every_type
def test_unpacking_random_bytes(name):
    kind = TensorType.named(name)
    size = kind.block_bytes * (256 // min(256, kind.block_elements)) * 37
    packed = np.frombuffer(np.random.PCG64(kind.id).random_raw(size), np.uint8)[: 3 * size].reshape(3, size)
    check([Job(kind, packed)])


@every_type
def test_infinity_and_nan_do_no_harm(name):
    kind = TensorType.named(name)
    jobs = []
    for special in (np.nan, -np.nan, np.inf, -np.inf):
        x = case("heavy", 4, 768)
        x[1, 5], x[3, ::16] = special, special
        jobs += [Job(kind, x, w) for w in importance_choices(kind, 768, ["importance"])]
    check(jobs)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0", "Q4_K", "IQ1_M", "MXFP4"])
def test_one_block_that_is_not_finite(name):
    """At each place in packed rows of every length around the lanes."""
    kind = TensorType.named(name)
    jobs = []
    for count in COUNTS:
        for at in range(count):
            blocks = np.zeros((1, count * kind.block_bytes), np.uint8)
            blocks[0, at * kind.block_bytes : (at + 1) * kind.block_bytes] = 0xFF
            jobs.append(Job(kind, blocks))
    check(jobs)


@pytest.mark.skipif(not FUSED_COMMAND, reason="`make neon` runs it")
@pytest.mark.parametrize("name", ["Q2_K", "Q4_K", "Q5_K"])
def test_canary_dies_of_fma(name):
    """Built with fused operations, the same program gives other bytes."""
    job = Job(TensorType.named(name), case("heavy", 64, 4096))
    for fused in run(FUSED_COMMAND, [job], len(BACKENDS))[0]:
        assert not np.array_equal(fused.packed, here(job).packed)


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 31), (2, 65, 33), (3, 130, 67)])
def test_products_of_factors(size: tuple[int, int, int]) -> None:
    random = np.random.default_rng(sum(size))
    n_rows, n_ranks, n_columns = size
    b, a = (random.normal(0, 1, of).astype(np.float32) for of in ((n_rows, n_ranks), (n_ranks, n_columns)))
    made = products(COMMAND, b, a)
    assert [each.tobytes() for each in made] == [binding.product(b, a, backend="portable").tobytes()] * len(BACKENDS)
