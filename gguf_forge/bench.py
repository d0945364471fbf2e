"""How fast the kernels are on this machine: against ggml's own, where it is installed, and against copying memory.

Each of our times is taken next to one of ggml's, in the same process and thread, and the median of the ratios is
reported: other work on the machine slows both.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge import kernels
from gguf_forge.errors import UsageError
from gguf_forge.tensor_types import TENSOR_TYPES, TensorType, tensor_type

COLUMNS = 4096
SMALLEST, LARGEST = 1 << 18, 1 << 24  # elements; the largest, as f32, is larger than most caches
SOURCES = ("f32", "f16", "bf16")

# Wheels that carry ggml's library: module, folder beside it, file. Source: their contents on PyPI.
GGML_WHEELS = (
    ("pywhispercpp", "pywhispercpp.libs", "libggml-base*.so*"),
    ("xllamacpp", "xllamacpp", "xllamacpp*.so"),
)


@dataclass(frozen=True)
class Measurement:
    """One kernel: `quantize`, `quantize weighted` or `dequantize` of `kind`."""

    kind: str
    work: str
    source: str
    backend: str
    million_values_per_second: float
    gigabytes_read_per_second: float
    ratio_to_ggml: float | None  # how many times as fast; None where ggml is absent or has no such kernel
    ratio_to_copy: float  # speed relative to copying the larger of what is read and what is written


@dataclass(frozen=True)
class Report:
    """All measurements, and what they were taken on."""

    cpu: str
    backends: tuple[str, ...]
    ggml: str | None  # the library that was measured beside ours
    copy_gigabytes_per_second: float  # bytes copied, in memory that no cache holds
    measurements: tuple[Measurement, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


class Ggml:
    """ggml's kernels, out of a wheel that carries them."""

    def __init__(self, path: Path):
        self.path = path
        self._library = ctypes.CDLL(str(path))
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._quantize = self._library.ggml_quantize_chunk
        self._quantize.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
        self._quantize.restype = ctypes.c_size_t

    def quantize(
        self,
        rows: NDArray[np.float32],
        kind: TensorType,
        out: NDArray[np.uint8],
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        """Packs float32 rows (n_rows, n) into uint8 rows."""
        importance = None if weights is None else weights.ctypes.data
        self._quantize(kind.id, rows.ctypes.data, out.ctypes.data, 0, *rows.shape, importance)

    def quantizes(self, kind: TensorType) -> bool:
        """Does this ggml know the type? Asked for one that it does not know, it would end the process."""
        return kind.is_float or hasattr(self._library, "quantize_" + kind.name.lower().replace("_k", "_K"))

    def dequantizer(self, kind: TensorType) -> Callable[[NDArray[np.uint8], NDArray[np.float32]], None] | None:
        """Unpacks uint8 rows into float32 rows; None for a type without such a function."""
        name = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}.get(
            kind.name, "dequantize_row_" + kind.name.lower().replace("_k", "_K")
        )
        function = getattr(self._library, name, None)
        if function is None:
            return None
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None
        return lambda packed, out: function(packed.ctypes.data, out.ctypes.data, out.size)


def find_ggml(name: str | None = None) -> Ggml | None:
    """ggml of an installed wheel (of the one named, if one is); None where there is none."""
    for module, folder, pattern in GGML_WHEELS:
        found = importlib.util.find_spec(module) if name in (None, module) else None
        if found is None or found.origin is None:
            continue
        home = Path(found.origin).parent
        site = home.parent if home.name == module else home
        for path in sorted((site / folder).glob(pattern)):
            return Ggml(path)
    return None


def measure(
    kinds: Iterable[str] = (),
    *,
    backends: Iterable[str] = (),
    sources: Iterable[str] = ("f32",),
    rounds: int = 5,
    progress: Callable[[Measurement], None] = lambda measurement: None,
) -> Report:
    """Measures the kernels, one thread, in million values and gigabytes a second.

    Args:
        kinds: Names of tensor types; all that have kernels if empty.
        backends: Of `gguf_forge.backends()`; the default one if empty.
        sources: Of "f32", "f16" and "bf16": the dtypes to quantize from.
        rounds: How many times to time each kernel.
        progress: Called with each measurement as it is made.

    Raises:
        UsageError: an unknown type, backend or source, or no rounds.

    Example:
        >>> report = measure(["Q8_0"], rounds=1)
        >>> report.measurements[0].million_values_per_second > 1
        True
    """
    chosen = [tensor_type(name) for name in kinds] or [
        kind for kind in TENSOR_TYPES.values() if kind in kernels.quantizable_types()
    ]
    names = tuple(backends) or (kernels.default_backend(),)
    if unknown := set(names) - set(kernels.backends()):
        raise UsageError(f"this machine cannot run the backend {min(unknown)!r}")
    if unknown := set(sources) - set(SOURCES):
        raise UsageError(f"unknown source {min(unknown)!r}", hint=f"use one of: {', '.join(SOURCES)}")
    if rounds < 1:
        raise UsageError(f"rounds must be at least 1, not {rounds}")
    ggml = find_ggml()
    copy = copy_speed()
    measurements = []
    for kind in chosen:
        for one in _measure_kind(kind, names, tuple(sources), rounds, ggml, copy):
            progress(one)
            measurements.append(one)
    return Report(cpu_name(), names, str(ggml.path.name) if ggml else None, copy / 1e9, tuple(measurements))


def copy_speed() -> float:
    """Bytes a second of copying memory that no cache holds."""
    source = np.ones(1 << 26, np.uint8)
    target = np.empty_like(source)
    seconds = min(_seconds(lambda: np.copyto(target, source)) for _ in range(7))
    return source.nbytes / seconds


def cpu_name() -> str:
    """What the machine calls its processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _measure_kind(
    kind: TensorType,
    backends: tuple[str, ...],
    sources: tuple[str, ...],
    rounds: int,
    ggml: Ggml | None,
    copy: float,
) -> Iterator[Measurement]:
    weights = np.abs(_values(1, COLUMNS)[0]) + np.float32(0.01)
    for weighted in _weightings(kind, weights):
        values = _sized_values(kind, weighted, backends[-1])
        packed = np.empty((len(values), kind.row_bytes(COLUMNS)), np.uint8)
        theirs = (
            None if ggml is None or not ggml.quantizes(kind) else _bind(ggml.quantize, values, kind, packed, weighted)
        )
        work = "quantize" if weighted is None else "quantize weighted"
        for source in sources:
            narrow = _as_source(values, source)
            for backend in backends:
                ours = _bind(kernels.quantize_rows, narrow, kind, packed, weights=weighted, backend=backend)
                blank = Measurement(kind.name, work, source, backend, 0, 0, None, 0)
                moved = narrow.nbytes, packed.nbytes
                yield _timed(blank, values.size, moved, ours, theirs, rounds, copy)
    values = np.empty((LARGEST // COLUMNS, COLUMNS), np.float32)
    packed = np.empty((len(values), kind.row_bytes(COLUMNS)), np.uint8)
    some = _values(SMALLEST // COLUMNS, COLUMNS)
    kernels.quantize_rows(some, kind, packed[: len(some)], weights=_weightings(kind, weights)[0])
    packed[:] = np.resize(packed[: len(some)], packed.shape)
    unpack = ggml.dequantizer(kind) if ggml else None
    theirs = None if unpack is None else _bind(unpack, packed, values)
    for backend in backends:
        ours = _bind(kernels.dequantize_rows, packed, kind, values, backend=backend)
        blank = Measurement(kind.name, "dequantize", kind.name.lower(), backend, 0, 0, None, 0)
        yield _timed(blank, values.size, (packed.nbytes, values.nbytes), ours, theirs, rounds, copy)


# Types whose bytes depend on importance.
WEIGHTABLE = frozenset(
    (
        *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
        *("IQ4_NL", "IQ4_XS", "IQ3_XXS", "IQ3_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M"),
    )
)


def _weightings(kind: TensorType, weights: NDArray[np.float32]) -> list[NDArray[np.float32] | None]:
    none: list[NDArray[np.float32] | None] = [] if kind in kernels.types_needing_weights() else [None]
    return [*none, weights] if kind.name in WEIGHTABLE else none


def _timed(
    blank: Measurement,
    n: int,
    moved: tuple[int, int],
    ours: Callable[[], object],
    theirs: Callable[[], object] | None,
    rounds: int,
    copy: float,
) -> Measurement:
    ours()
    pairs = [(_seconds(ours), _seconds(theirs) if theirs else None) for _ in range(rounds)]
    seconds = statistics.median(mine for mine, _ in pairs)
    ratios = [other / mine for mine, other in pairs if other is not None]
    return replace(
        blank,
        million_values_per_second=n / seconds / 1e6,
        gigabytes_read_per_second=moved[0] / seconds / 1e9,
        ratio_to_ggml=statistics.median(ratios) if ratios else None,
        ratio_to_copy=max(moved) / copy / seconds,
    )


def _bind(function: Callable[..., object], *args: object, **options: object) -> Callable[[], object]:
    return lambda: function(*args, **options)


def _seconds(work: Callable[[], object]) -> float:
    """Of this thread's CPU, so that waiting for a busy machine does not count."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def _values(n_rows: int, n: int) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.random.default_rng(1).standard_normal((n_rows, n), np.float32) * np.float32(0.02)
    return values


def _sized_values(kind: TensorType, weights: NDArray[np.float32] | None, backend: str) -> NDArray[np.float32]:
    """As many values as this kind is quantized of in about 20 ms, but no fewer than half a second's at 0.5 M/s."""
    probe = _values(SMALLEST // COLUMNS, COLUMNS)
    packed = np.empty((len(probe), kind.row_bytes(COLUMNS)), np.uint8)
    work = _bind(kernels.quantize_rows, probe, kind, packed, weights=weights, backend=backend)
    work()
    wanted = int(SMALLEST * 0.02 / _seconds(work))
    size = min(max(wanted, SMALLEST), LARGEST)
    return _values(size // COLUMNS, COLUMNS) if size >= 2 * SMALLEST else probe


def _as_source(values: NDArray[np.float32], source: str) -> NDArray[Any]:
    if source == "f16":
        return values.astype(np.float16)
    if source == "bf16":
        bits: NDArray[Any] = (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return bits
    return values
