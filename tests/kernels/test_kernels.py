"""The compiled kernels' manners: bounds, alignment, odd counts, floating-point state, arguments."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from kernel_inputs import case, case_importance

from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.kernels import binding
from gguf_forge.kernels.rows import dequantize, quantize
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

TYPES = sorted((kind.name for kind in binding.quantizable_types()), key=list(TENSOR_TYPES).index)
LANES = (4, 8, 16, 32)
COUNTS = sorted({1, 31} | {n for w in LANES for n in (w - 1, w, w + 1, 2 * w + 1)})
WIDTHS = {"float32": 4, "float16": 2, "uint16": 2}

every_backend = pytest.mark.parametrize("backend", binding.backends())
every_type = pytest.mark.parametrize("name", TYPES)


def importance_choices(name: str, kind_of_importance: str, n: int) -> list[np.ndarray | None]:
    """No importance, where the type does without, and some."""
    needed = TensorType.named(name) in binding.types_needing_importance()
    return [*([] if needed else [None]), case_importance(kind_of_importance, n)]


def whole_rows(name: str) -> int:
    return max(32, TensorType.named(name).block_elements)


@every_type
@every_backend
def test_block_counts_around_the_lane_count(backend, name):
    """As one row, as rows of one block, and as rows of three."""
    n = whole_rows(name)
    for count in COUNTS:
        for per_row in {1, count, 3}:
            x = case("heavy", 1, n * count * per_row).reshape(-1, n * per_row)
            for importance in importance_choices(name, "with_zeros", n * per_row):
                one_at_a_time = np.concatenate(
                    [quantize(row[None], name, importance=importance, backend="portable") for row in x]
                )
                together = quantize(x, name, importance=importance, backend=backend)
                assert np.array_equal(together, one_at_a_time), (count, per_row, importance is None)


class GuardedBuffer:
    """Memory that ends, or begins, at a page that may not be touched."""

    def __init__(self, size: int):
        page = mmap.PAGESIZE
        self.pages = -(-size // page) * page
        self.map = mmap.mmap(-1, self.pages + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for edge in (start, start + page + self.pages):
            assert protect(edge, page, 0) == 0, os.strerror(ctypes.get_errno())

    def array(self, shape: tuple[int, ...], dtype: str, at_end: bool) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        offset = mmap.PAGESIZE + (self.pages - size if at_end else 0)
        return np.frombuffer(self.map, np.uint8, size, offset).view(dtype).reshape(shape)


@pytest.mark.skipif(sys.platform != "linux", reason="uses mprotect")
@every_type
@every_backend
def test_nothing_outside_the_buffers_is_touched(backend, name):
    kind, n = TensorType.named(name), whole_rows(name)
    for count in (1, 3, 17, 35):
        for source in WIDTHS:
            shape = (count, n)
            x = case("heavy", *shape)
            narrow = (x.view(np.uint32) >> 16).astype(np.uint16) if source == "uint16" else x.astype(source)
            packed_shape = (count, kind.row_bytes(n))
            for at_end in (True, False):
                src = GuardedBuffer(narrow.nbytes).array(shape, source, at_end)
                dst = GuardedBuffer(packed_shape[0] * packed_shape[1]).array(packed_shape, "uint8", at_end)
                importance = GuardedBuffer(4 * n).array((n,), "float32", at_end)
                values = GuardedBuffer(4 * count * n).array(shape, "float32", at_end)
                src[...], importance[...] = narrow, case_importance("importance", n)
                for given in [importance, *importance_choices(name, "importance", n)[:-1]]:
                    binding.quantize_rows(src, kind, dst, importance=given, backend=backend)
                binding.dequantize_rows(dst, kind, values, backend=backend)
                assert np.isfinite(values).all()
                assert binding.is_finite(dst, kind, backend=backend)


@every_type
@every_backend
@pytest.mark.parametrize("source", WIDTHS)
def test_unaligned_buffers_give_the_same_bytes(source, backend, name):
    kind, n = TensorType.named(name), 3 * whole_rows(name)
    x = case("heavy", 5, n)
    narrow = (x.view(np.uint32) >> 16).astype(np.uint16) if source == "uint16" else x.astype(source)
    expected, importance = np.empty((5, kind.row_bytes(n)), np.uint8), importance_choices(name, "importance", n)[0]
    binding.quantize_rows(narrow, kind, expected, importance=importance, backend="portable")
    unpacked = np.empty((5, n), np.float32)
    binding.dequantize_rows(expected, kind, unpacked, backend="portable")
    for offset in (1, 2, 3):
        room = np.zeros(narrow.nbytes + 4, np.uint8)
        src = room[offset : offset + narrow.nbytes].view(source).reshape(narrow.shape)
        src[...] = narrow
        out = np.full(expected.nbytes + 8, 0xA5, np.uint8)
        dst = out[offset : offset + expected.nbytes].reshape(expected.shape)
        binding.quantize_rows(src, kind, dst, importance=importance, backend=backend)
        assert np.array_equal(dst, expected)
        assert (out[:offset] == 0xA5).all() and (out[offset + expected.nbytes :] == 0xA5).all()
        again = np.empty((5, n), np.float32)
        binding.dequantize_rows(dst, kind, again, backend=backend)
        assert np.array_equal(again, unpacked, equal_nan=True)


# Of glibc's fenv_t: offset of the control word; its bits for flushing denormals; for rounding upwards.
FENV_LAYOUT = {"x86_64": (28, 0x8040, 0x4000), "aarch64": (0, 1 << 24, 1 << 22)}


class FloatState:
    """The calling thread's floating-point control word, by the C library's fegetenv and fesetenv."""

    def __init__(self) -> None:
        self.libm = ctypes.CDLL("libm.so.6")
        self.offset, self.flush, self.upward = FENV_LAYOUT[platform.machine()]

    def get(self) -> int:
        state = ctypes.create_string_buffer(64)
        self.libm.fegetenv(state)
        return int.from_bytes(state.raw[self.offset : self.offset + 4], "little")

    def set(self, control: int) -> None:
        state = ctypes.create_string_buffer(64)
        self.libm.fegetenv(state)
        state[self.offset : self.offset + 4] = control.to_bytes(4, "little")
        self.libm.fesetenv(state)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in FENV_LAYOUT, reason="knows glibc's fenv_t only"
)
@every_type
@every_backend
def test_callers_floating_point_state_is_ignored_and_kept(backend, name):
    state = FloatState()
    x = np.concatenate([case("denormals", 3, 768), case("scaled_256", 3, 768), case("tiny", 3, 768)])
    importance = importance_choices(name, "importance", 768)[0]
    expected = quantize(x, name, importance=importance, backend=backend)
    values = dequantize(expected, name, backend=backend)
    original = state.get()
    ours, again = np.empty_like(expected), np.empty_like(values)
    kind = TensorType.named(name)
    try:
        state.set(original | state.flush | state.upward)
        changed = state.get()
        binding.quantize_rows(x, kind, ours, importance=importance, backend=backend)
        after_quantize = state.get()
        binding.dequantize_rows(expected, kind, again, backend=backend)
        after_dequantize = state.get()
    finally:
        state.set(original)
    assert changed != original
    assert after_quantize == changed and after_dequantize == changed
    assert np.array_equal(ours, expected)
    assert np.array_equal(again.view(np.uint32), values.view(np.uint32))


def compile_with_fma(folder: Path) -> Path | None:
    """The portable kernels with fused multiply-adds; None where that can't be built or run."""
    compiler = shutil.which("cc")
    source = Path(__file__).resolve().parents[2] / "csrc"
    flags = ["-mfma"] if platform.machine() == "x86_64" else []
    cpu = Path("/proc/cpuinfo")
    if compiler is None or not source.is_dir() or sys.platform != "linux":
        return None
    if flags and " fma " not in cpu.read_text(encoding="utf-8").replace("\n", " "):
        return None
    library = folder / "fused.so"
    fused = ["-O2", "-ffp-contract=fast", *flags, "-shared", "-fPIC", "-I", str(source)]
    wrapper = folder / "fused.c"
    wrapper.write_text(
        '#include "base.h"\n#include "lanes/scalar.h"\n#include "kernels/table.inc"\n'
        'static const forge_backend fused = {"fused", LANES, product, KERNEL_TABLE};\n'
        "void fused_quantize(int type, const void *x, void *out, int64_t rows, int64_t n)\n"
        "{ const forge_request r = {.data = x, .nrows = rows, .n_per_row = n, .source = FORGE_F32, .type = type};\n"
        "  fused.kernels[type].quantize(&r, out); }\n",
        encoding="utf-8",
    )
    subprocess.run(
        [compiler, *fused, str(wrapper), str(source / "grid_tables.c"), "-o", str(library), "-lm"],
        check=True,
        capture_output=True,
    )
    return library


CANARY_TYPES = ["Q2_K", "Q4_K", "Q5_K"]


def test_canary_dies_of_fma(tmp_path):
    """The canary's bytes change when a*b+c is fused: so equal bytes mean that nothing was."""
    library = compile_with_fma(tmp_path)
    if library is None:
        pytest.skip("needs a C compiler and a CPU with FMA")
    fused = ctypes.CDLL(str(library)).fused_quantize
    fused.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    canary = case("heavy", 64, 4096)
    for name in CANARY_TYPES:
        ours = quantize(canary, name, backend="portable")
        contracted = np.empty_like(ours)
        fused(TensorType.named(name).id, canary.ctypes.data, contracted.ctypes.data, *canary.shape)
        assert not np.array_equal(ours, contracted), name


@every_backend
@pytest.mark.parametrize("name", CANARY_TYPES)
def test_canary_lives(backend, name):
    canary = case("heavy", 64, 4096)
    assert np.array_equal(quantize(canary, name, backend=backend), quantize(canary, name, backend="portable"))


def test_backends_begin_with_the_portable_one():
    assert binding.backends()[0] == "portable"
    assert binding.backend_lanes("portable") >= 1


def test_default_backend_is_the_last_or_that_of_the_environment(monkeypatch):
    monkeypatch.delenv(binding.BACKEND_VARIABLE, raising=False)
    assert binding.default_backend() == binding.backends()[-1]
    monkeypatch.setenv(binding.BACKEND_VARIABLE, "portable")
    assert binding.default_backend() == "portable"
    monkeypatch.setenv(binding.BACKEND_VARIABLE, "abacus")
    with pytest.raises(UsageError, match="GGUF_FORGE_BACKEND names the backend 'abacus'"):
        binding.default_backend()
    with pytest.raises(UsageError, match="abacus"):
        quantize(np.ones((1, 32), np.float32), "Q8_0")


def test_wrong_arguments_are_refused():
    q8, rows, out = TensorType.named("Q8_0"), np.ones((2, 64), np.float32), np.empty((2, 68), np.uint8)
    read_only = out.copy()
    read_only.flags.writeable = False
    for problem, arguments, options in (
        ("two axes", (rows[0], q8, out), {}),
        ("float64", (rows.astype(np.float64), q8, out), {}),
        ("33 values", (np.ones((2, 33), np.float32), q8, out), {}),
        (r"uint8 \(2, 68\), not uint8 \(2, 34\)", (rows, q8, out[:, :34]), {}),
        ("C-contiguous", (np.ones((64, 2), np.float32).T, q8, out), {}),
        ("writable", (rows, q8, read_only), {}),
        ("not int8", (rows, q8, out.astype(np.int8)), {}),
        ("importance must be float32", (rows, q8, out), {"importance": np.ones(64)}),
        (r"importance must be float32 \(64,\)", (rows, q8, out), {"importance": np.ones(63, np.float32)}),
        ("abacus", (rows, q8, out), {"backend": "abacus"}),
    ):
        with pytest.raises(UsageError, match=problem):
            binding.quantize_rows(*arguments, **options)
    iq2 = TensorType.named("IQ2_XS")
    with pytest.raises(UsageError, match="IQ2_XS needs an importance matrix"):
        binding.quantize_rows(np.ones((2, 256), np.float32), iq2, np.empty((2, 74), np.uint8))
    with pytest.raises(UnsupportedError, match="Q8_1"):
        binding.quantize_rows(rows, TensorType.named("Q8_1"), out)
    with pytest.raises(UnsupportedError, match="I32"):
        binding.dequantize_rows(out, TensorType.named("I32"), rows)
    with pytest.raises(UsageError, match="float32"):
        binding.dequantize_rows(out, q8, rows.astype(np.float16))
    with pytest.raises(UsageError, match="float32"):
        binding.dequantize_rows(out, q8, rows[0])
    with pytest.raises(UsageError, match="packed rows"):
        binding.dequantize_rows(out[:, :34], q8, rows)


def test_no_rows_is_no_work():
    q8 = TensorType.named("Q8_0")
    binding.quantize_rows(np.empty((0, 64), np.float32), q8, np.empty((0, 68), np.uint8))
    binding.dequantize_rows(np.empty((0, 68), np.uint8), q8, np.empty((0, 64), np.float32))


def test_module_is_built_for_the_stable_abi():
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("free-threaded builds have no stable ABI")
    module = Path(sys.modules["gguf_forge._kernels"].__file__).name
    assert sys.platform == "win32" or ".abi3." in module


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M"])
def test_tables_have_the_size_that_is_asked_for(name):
    kind = TensorType.named(name)
    size = binding.lib.forge_tables_size(kind.id)
    room = binding.ffi.new("uint32_t[]", size // 4 + 1024)
    assert binding.lib.forge_make_tables(kind.id, room) == size
