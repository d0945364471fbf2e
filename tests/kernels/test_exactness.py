"""The kernels' bytes against ggml's own, from two builds of it, and against golden hashes everywhere."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kernel_inputs import CASES, IMPORTANCE, case, case_importance
from kernel_oracles import CHECKED, ORACLES, oracle, oracle_names

from gguf_forge.kernels import binding
from gguf_forge.kernels.rows import dequantize, quantize
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

ROWS, COLUMNS = 6, 768  # an odd number of super-blocks in a row
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
TYPES = sorted((kind.name for kind in binding.quantizable_types()), key=list(TENSOR_TYPES).index)

every_backend = pytest.mark.parametrize("backend", binding.backends())
every_type = pytest.mark.parametrize("name", TYPES)
every_oracle = pytest.mark.parametrize("oracle_name", ORACLES)


def importance_named(name: str | None, n: int = COLUMNS):
    return None if name is None else case_importance(name, n)


def importance_names(kind: TensorType) -> tuple[str | None, ...]:
    """Names of the importance to test with; None for none at all."""
    return tuple(IMPORTANCE) if kind in binding.types_needing_importance() else (None, *IMPORTANCE)


def differing(a: np.ndarray, b: np.ndarray) -> int:
    return int((a.view(np.uint8) != b.view(np.uint8)).sum())


@cache
def expected(oracle_name: str, name: str, case_name: str, importance_name: str | None) -> np.ndarray | None:
    """What ggml makes of a case; None where it aborts."""
    kind = TensorType.named(name)
    ggml = oracle(oracle_name, kind)
    return ggml.try_quantize(case(case_name, ROWS, COLUMNS), kind, importance_named(importance_name))


@every_type
@every_backend
@every_oracle
def test_quantize_equals_ggml_on_every_case(oracle_name, backend, name):
    kind = TensorType.named(name)
    wrong = {}
    for case_name in CASES:
        x = case(case_name, ROWS, COLUMNS)
        for importance_name in importance_names(kind):
            importance = importance_named(importance_name)
            theirs = expected(oracle_name, name, case_name, importance_name)
            ours = quantize(x, kind, importance=importance, backend=backend)
            if theirs is not None and (count := differing(ours, theirs)):
                wrong[case_name, importance_name] = count
    assert not wrong


@every_type
@every_backend
@every_oracle
def test_dequantize_equals_ggml_on_random_bytes(oracle_name, backend, name):
    """Any bytes at all: every code, every scale, infinities and NaN among them."""
    kind = TensorType.named(name)
    ggml = oracle(oracle_name, kind)
    if kind.name == "F32":
        pytest.skip("ggml has no conversion from F32")
    size = kind.block_bytes * (256 // min(256, kind.block_elements)) * 37
    packed = np.frombuffer(np.random.PCG64(kind.id).random_raw(size), np.uint8)[: 3 * size].reshape(3, size)
    ours, theirs = dequantize(packed, kind, backend=backend), ggml.dequantize(packed, kind)
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    finite = ~np.isnan(ours)
    assert differing(ours[finite], theirs[finite]) == 0


def random_rows(kind: TensorType):
    """Rows of one to three blocks of any finite floats, many of them equal, zero or extreme."""
    n = max(kind.block_elements, 32)
    common = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0**-149, -(2.0**-149), 2.0**-126, 3.0e38, -3.0e38, 1e-15])
    anything = st.floats(width=32, allow_nan=False, allow_infinity=False)
    bounded = st.floats(-8, 8, width=32)
    blocks = st.integers(1, 3)
    return blocks.flatmap(
        lambda count: arrays(np.float32, (1, n * count), elements=st.one_of(bounded, common, anything), fill=common)
    )


@every_type
@every_backend
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_quantize_equals_ggml_on_made_up_rows(backend, name, data):
    kind = TensorType.named(name)
    ggml = oracle(oracle_names(kind)[0], kind)
    x = data.draw(random_rows(kind))
    numbers = st.one_of(st.just(0.0), st.floats(0, 2.0**60, width=32))
    given_importance = arrays(np.float32, x.shape[1], elements=numbers)
    importance = data.draw(given_importance if None not in importance_names(kind) else st.none() | given_importance)
    ours, theirs = quantize(x, kind, importance=importance, backend=backend), ggml.try_quantize(x, kind, importance)
    assert theirs is None or differing(ours, theirs) == 0


@every_type
@every_backend
@pytest.mark.parametrize(
    ("common", "one"), [(2.0**-126, 7.0), (2.0**-126, 2.0**100), (2.0**100, 2.0**-126), (1.0, 3e38)]
)
def test_scales_that_fit_next_to_nothing(backend, name, common, one):
    """All importance is on one value, to which the scale is fitted, and others overflow by it."""
    kind = TensorType.named(name)
    ggml = oracle(oracle_names(kind)[0], kind)
    n = max(kind.block_elements, 256)
    for place in (0, 1, 5):
        x = np.full((1, n), common, np.float32)
        x[0, place + 1 :: 32] = one
        importance = np.zeros(n, np.float32)
        importance[place::128] = 3.6e15
        theirs = ggml.try_quantize(x, kind, importance)
        assert theirs is None or differing(quantize(x, kind, importance=importance, backend=backend), theirs) == 0


@every_backend
@pytest.mark.parametrize("name", TYPES)
def test_golden_hashes(backend, name):
    """Hashes of ggml's bytes, so that machines without an oracle are tested too."""
    golden, kind = GOLDEN["outputs"][name], TensorType.named(name)
    for case_name in CASES:
        x = case(case_name, ROWS, COLUMNS)
        assert sha256(x) == GOLDEN["inputs"][case_name], f"the input {case_name} is not what it was"
        for importance_name in importance_names(kind):
            key = f"{case_name}/{importance_name or 'plain'}"
            packed = quantize(x, kind, importance=importance_named(importance_name), backend=backend)
            if key in golden or name not in CHECKED:
                assert sha256(packed)[:16] == golden[key], key
    importance = importance_named(importance_names(kind)[0])
    packed = quantize(case("heavy", ROWS, COLUMNS), kind, importance=importance, backend=backend)
    assert sha256(dequantize(packed, kind, backend=backend))[:16] == golden["dequantized heavy"]


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@every_type
@every_backend
@pytest.mark.parametrize("source", ["float16", "bfloat16"])
def test_narrow_sources_equal_their_widened_values(source, backend, name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.float16 if source == "float16" else ml_dtypes.bfloat16
    with np.errstate(over="ignore"):
        x = [case(c, 1, COLUMNS)[0] for c in ("heavy", "sparse", "random_floats", "denormals")]
        narrow = np.stack(x).astype(dtype)
    narrow[~np.isfinite(narrow.astype(np.float32))] = 1
    for importance in (importance_named(importance_names(TensorType.named(name))[0]), importance_named("importance")):
        ours = quantize(narrow, name, importance=importance, backend=backend)
        widened = quantize(narrow.astype(np.float32), name, importance=importance, backend="portable")
        assert differing(ours, widened) == 0


def extreme_halves(dtype: type) -> np.ndarray:
    """Blocks of 16 to 256 halves: of one sign, with equal extremes, zeros of both signs, infinity, NaN, and others."""
    x = case("from_bf16", 40, COLUMNS).astype(dtype)
    for length, rows in ((16, x[:10]), (32, x[10:20]), (64, x[20:30]), (256, x[30:])):
        blocks = rows.reshape(-1, length)
        for k, values in enumerate((0.0, -0.0, np.inf, -np.inf, np.nan, 3.0)):
            blocks[k::17, length // 3] = values
        blocks[6::17] = np.abs(blocks[6::17].astype(np.float32))
        blocks[7::17] = -np.abs(blocks[7::17].astype(np.float32))
        blocks[8::17, 1:3] = [4.0, -4.0]
        blocks[9::17, 1:3] = [-4.0, 4.0]
        blocks[10::17] = 0.0
        blocks[11::17, ::2] = -0.0
        blocks[12::17] = np.inf
        blocks[13::17] = np.nan
        blocks[14::17, -1] = -np.inf
    return x


@every_type
@every_backend
@pytest.mark.parametrize("source", ["float16", "bfloat16"])
def test_extremes_of_narrow_sources_are_those_of_their_widened_values(source, backend, name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    narrow = extreme_halves(np.float16 if source == "float16" else ml_dtypes.bfloat16)
    importance = importance_named(importance_names(TensorType.named(name))[0])
    ours = quantize(narrow, name, importance=importance, backend=backend)
    widened = quantize(narrow.astype(np.float32), name, importance=importance, backend=backend)
    assert differing(ours, widened) == 0


@every_backend
def test_every_f16_and_bf16_value_widens_as_in_numpy(backend):
    every = np.arange(1 << 16, dtype=np.uint16)
    for name, widened in (
        ("F16", every.view(np.float16).astype(np.float32)),
        ("BF16", (every.astype(np.uint32) << 16).view(np.float32)),
    ):
        ours = dequantize(every.view(np.uint8)[None], name, backend=backend)[0]
        assert np.array_equal(np.isnan(ours), np.isnan(widened))
        number = ~np.isnan(widened)
        assert differing(ours[number], widened[number]) == 0


@every_backend
def test_rounding_to_f16_and_bf16_equals_numpy_and_ml_dtypes(backend):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    names = ("random_floats", "beyond_f16", "below_f16", "denormals", "heavy")
    x = np.stack([case(c, 1, 6144)[0] for c in names])
    with np.errstate(over="ignore", under="ignore"):
        assert differing(quantize(x, "F16", backend=backend), x.astype(np.float16)) == 0
        assert differing(quantize(x, "BF16", backend=backend), x.astype(ml_dtypes.bfloat16)) == 0


@every_backend
def test_nan_becomes_what_ggml_makes_of_it(backend):
    bits = [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7FA01234, 0x7F800000, 0xFF800000]
    x = np.array([bits], np.uint32)
    f16 = quantize(x.view(np.float32), "F16", backend=backend).view(np.uint16)[0]
    assert [hex(v) for v in f16] == ["0x7e00", "0xfe00", "0x7e00", "0xfe00", "0x7e00", "0x7c00", "0xfc00"]
    bf16 = quantize(x.view(np.float32), "BF16", backend=backend).view(np.uint16)[0]
    assert [hex(v) for v in bf16] == ["0x7fc0", "0xffc0", "0x7fc0", "0xffff", "0x7fe0", "0x7f80", "0xff80"]


@every_type
@every_backend
@every_oracle
@pytest.mark.parametrize("special", [np.nan, -np.nan, np.inf, -np.inf], ids=["nan", "-nan", "inf", "-inf"])
def test_nan_and_infinity_give_what_ggml_gives(special, oracle_name, backend, name):
    """For the default NaN; ggml's bytes for a NaN with a payload are the compiler's choice."""
    kind = TensorType.named(name)
    ggml = oracle(oracle_name, kind)
    for column in (0, 5, 31, 300):
        x = case("heavy", 4, COLUMNS)
        x[1, column], x[3, ::16] = special, special
        for importance in (importance_named(importance_names(kind)[0]), importance_named("importance")):
            ours, theirs = (
                quantize(x, kind, importance=importance, backend=backend),
                ggml.try_quantize(x, kind, importance),
            )
            assert theirs is None or differing(ours, theirs) == 0


@every_backend
@pytest.mark.parametrize("name", CHECKED)
def test_what_ggml_aborts_over_gives_the_same_bytes_everywhere(backend, name):
    for case_name in ("huge", "random_floats", "scaled_256"):
        x, importance = case(case_name, ROWS, COLUMNS), importance_named("importance")
        x[2, 7] = np.nan
        ours = quantize(x, name, importance=importance, backend=backend)
        assert differing(ours, quantize(x, name, importance=importance, backend="portable")) == 0


NUMPY_UNPACKS = ["IQ4_NL", "IQ4_XS", *CHECKED, "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"]


@every_backend
@pytest.mark.parametrize("name", NUMPY_UNPACKS)
def test_new_types_equal_gguf_py(backend, name):
    """A third implementation, in NumPy, that runs on any machine."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("gguf.quants")
    x, their_type = case("heavy", ROWS, COLUMNS), gguf.GGMLQuantizationType[name]
    packed = quantize(x, name, importance=importance_named("importance"), backend=backend)
    theirs = gguf.quants.dequantize(packed, their_type)
    assert differing(dequantize(packed, name, backend=backend), np.ascontiguousarray(theirs)) == 0
    if name in ("TQ1_0", "TQ2_0", "MXFP4"):
        assert differing(packed, gguf.quants.quantize(x, their_type)) == 0
