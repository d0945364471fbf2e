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
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import UsageError
from gguf_forge.kernels import binding
from gguf_forge.types.tensor_type import TENSOR_TYPES, ImportanceUse, TensorType

COLUMNS = 4096
SMALLEST, LARGEST = 1 << 18, 1 << 24  # values; LARGEST values as f32 are larger than most caches
SOURCES = ("f32", "f16", "bf16")

# Wheels that contain ggml's library: module, folder next to it, file, and the types whose kernels are from an older
# ggml and have another speed. Source: their contents on PyPI.
GGML_WHEELS = (
    ("pywhispercpp", "pywhispercpp.libs", "libggml-base*.so*", ("IQ1_M",)),
    ("xllamacpp", "xllamacpp", "xllamacpp*.so", ()),
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
    ggml: str | None  # the ggml library that was also measured; None if no installed one has the kernel
    ratio_to_ggml: float | None  # how many times as fast as ggml
    ratio_to_copy: float  # speed relative to copying the larger of what is read and what is written


@dataclass(frozen=True)
class BenchReport:
    """All measurements, and what they were taken on."""

    cpu: str
    backends: tuple[str, ...]
    ggml: tuple[str, ...]  # the ggml libraries that are installed
    copy_gigabytes_per_second: float  # speed of copying memory that is larger than the caches
    measurements: tuple[Measurement, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


class Ggml:
    """ggml's kernels, loaded from a wheel that contains them."""

    def __init__(self, path: Path, outdated: Iterable[str] = ()):
        self.path, self._outdated = path, frozenset(outdated)
        self._library = ctypes.CDLL(str(path))
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._quantize = self._library.ggml_quantize_chunk
        self._quantize.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
        self._quantize.restype = ctypes.c_size_t

    def quantize(
        self,
        rows: NDArray[np.float32],
        tensor_type: TensorType,
        out: NDArray[np.uint8],
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        """Packs float32 rows (n_rows, n) into uint8 rows."""
        address = None if importance is None else importance.ctypes.data
        self._quantize(tensor_type.id, rows.ctypes.data, out.ctypes.data, 0, *rows.shape, address)

    def quantizes(self, tensor_type: TensorType) -> bool:
        """Whether this ggml has the current kernel of the type. ggml aborts if it is asked for an unknown type."""
        if tensor_type.name in self._outdated:
            return False
        name = "quantize_" + tensor_type.name.lower().replace("_k", "_K")
        return tensor_type.is_float or hasattr(self._library, name)

    def dequantizer(self, tensor_type: TensorType) -> Callable[[NDArray[np.uint8], NDArray[np.float32]], None] | None:
        """Unpacks uint8 rows into float32 rows; None for a type without such a function."""
        name = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}.get(
            tensor_type.name, "dequantize_row_" + tensor_type.name.lower().replace("_k", "_K")
        )
        function = getattr(self._library, name, None)
        if function is None:
            return None
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None
        return lambda packed, out: function(packed.ctypes.data, out.ctypes.data, out.size)


def find_ggml() -> tuple[Ggml, ...]:
    """The ggml library of each installed wheel that contains one."""
    libraries = []
    for module, folder, pattern, outdated in GGML_WHEELS:
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            continue
        home = Path(found.origin).parent
        site = home.parent if home.name == module else home
        libraries += [Ggml(path, outdated) for path in sorted((site / folder).glob(pattern))[:1]]
    return tuple(libraries)


def measure(
    kinds: Iterable[str] = (),
    *,
    backends: Iterable[str] = (),
    sources: Iterable[str] = ("f32",),
    rounds: int = 5,
    progress: Callable[[Measurement, int, int], None] = lambda measurement, number, total: None,
) -> BenchReport:
    """Measures the kernels, one thread, in million values and gigabytes a second.

    Args:
        kinds: Names of tensor types; all that have kernels if empty.
        backends: Of `gguf_forge.backends()`; the default one if empty.
        sources: Of "f32", "f16" and "bf16": the dtypes to quantize from.
        rounds: How many times to time each kernel.
        progress: Called with each measurement as it is made, its number, and how many there will be.

    Raises:
        UsageError: an unknown type, backend or source, or no rounds.

    Example:
        >>> report = measure(["Q8_0"], rounds=1)
        >>> report.measurements[0].million_values_per_second > 1
        True
    """
    chosen = [TensorType.named(name) for name in kinds] or [
        tensor_type for tensor_type in TENSOR_TYPES.values() if tensor_type in binding.quantizable_types()
    ]
    names, sources = tuple(backends) or (binding.default_backend(),), tuple(sources)
    if unknown := set(names) - set(binding.backends()):
        raise UsageError(f"this machine cannot run the backend {min(unknown)!r}")
    if unknown := set(sources) - set(SOURCES):
        raise UsageError(f"unknown source {min(unknown)!r}", hint=f"use one of: {', '.join(SOURCES)}")
    if rounds < 1:
        raise UsageError(f"rounds must be at least 1, not {rounds}")
    ggml, copy, measurements = find_ggml(), copy_speed(), []
    wanted = [
        (tensor_type, work, source, backend)
        for tensor_type in chosen
        for work in works(tensor_type)
        for source in (sources if work != DEQUANTIZE else sources[:1])
        for backend in names
    ]
    for each in wanted:
        measurements.append(workload(*each, ggml).timed(rounds, copy))
        progress(measurements[-1], len(measurements), len(wanted))
    return BenchReport(cpu_name(), names, tuple(each.path.name for each in ggml), copy / 1e9, tuple(measurements))


def copy_speed() -> float:
    """Bytes a second of copying memory that no cache holds."""
    source = np.ones(1 << 26, np.uint8)
    target = np.empty_like(source)
    seconds = min(thread_seconds(lambda: np.copyto(target, source)) for _ in range(7))
    return source.nbytes / seconds


def cpu_name() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Workload:
    """A kernel with its data, ready to run, and ggml's kernel for the same work if there is one."""

    tensor_type: TensorType
    work: str
    source: str
    backend: str
    values: int
    bytes_read: int
    bytes_written: int
    ours: Callable[[], object]
    theirs: Callable[[], object] | None
    ggml: str | None

    def timed(self, rounds: int, copy: float) -> Measurement:
        """Times our kernel and ggml's in turn, `rounds` times, in this thread, after one run of each.

        `copy` is in bytes a second.
        """
        self.ours()
        self.seconds_of_ggml()  # the first call makes ggml's tables
        pairs = [(thread_seconds(self.ours), self.seconds_of_ggml()) for _ in range(rounds)]
        return self.measurement(pairs, copy)

    def seconds_of_ggml(self) -> float | None:
        return None if self.theirs is None else thread_seconds(self.theirs)

    def measurement(self, pairs: Iterable[tuple[float, float | None]], copy: float) -> Measurement:
        """The result for pairs of our seconds and ggml's."""
        pairs = tuple(pairs)
        seconds = statistics.median(ours for ours, _ in pairs)
        ratios = [theirs / ours for ours, theirs in pairs if theirs is not None]
        return Measurement(
            kind=self.tensor_type.name,
            work=self.work,
            source=self.source,
            backend=self.backend,
            million_values_per_second=self.values / seconds / 1e6,
            gigabytes_read_per_second=self.bytes_read / seconds / 1e9,
            ggml=self.ggml,
            ratio_to_ggml=statistics.median(ratios) if ratios else None,
            ratio_to_copy=max(self.bytes_read, self.bytes_written) / copy / seconds,
        )


QUANTIZE, WEIGHTED, DEQUANTIZE = "quantize", "quantize weighted", "dequantize"


def works(tensor_type: TensorType) -> tuple[str, ...]:
    """The kinds of work that can be measured for a type."""
    plain = () if tensor_type in binding.types_needing_importance() else (QUANTIZE,)
    return (*plain, *((WEIGHTED,) if tensor_type.importance >= ImportanceUse.USED else ()), DEQUANTIZE)


def workload(tensor_type: TensorType, work: str, source: str, backend: str, ggml: Iterable[Ggml]) -> Workload:
    """The workload of one of `works(tensor_type)`, with the first `ggml` that has it. Unpacking ignores `source`."""
    if work == DEQUANTIZE:
        return _unpacking(tensor_type, backend, ggml)
    importance = _importance() if work == WEIGHTED else None
    values = _sized_values(tensor_type, importance)
    narrow, packed = _as_source(values, source), _packed_rows(len(values), tensor_type)
    able = next((each for each in ggml if each.quantizes(tensor_type)), None)
    return Workload(
        tensor_type,
        work,
        source,
        backend,
        values.size,
        narrow.nbytes,
        packed.nbytes,
        ours=_bind(binding.quantize_rows, narrow, tensor_type, packed, importance=importance, backend=backend),
        theirs=_bind(able.quantize, values, tensor_type, packed, importance) if able else None,
        ggml=able.path.name if able else None,
    )


def _unpacking(tensor_type: TensorType, backend: str, ggml: Iterable[Ggml]) -> Workload:
    some, values = _values(SMALLEST // COLUMNS), np.empty((LARGEST // COLUMNS, COLUMNS), np.float32)
    packed = _packed_rows(len(values), tensor_type)
    binding.quantize_rows(some, tensor_type, packed[: len(some)], importance=_importance())
    packed[:] = np.resize(packed[: len(some)], packed.shape)
    unpack, able = next(((f, each) for each in ggml if (f := each.dequantizer(tensor_type))), (None, None))
    return Workload(
        tensor_type,
        DEQUANTIZE,
        tensor_type.name.lower(),
        backend,
        values.size,
        packed.nbytes,
        values.nbytes,
        ours=_bind(binding.dequantize_rows, packed, tensor_type, values, backend=backend),
        theirs=_bind(unpack, packed, values) if unpack else None,
        ggml=able.path.name if able else None,
    )


def _bind(function: Callable[..., object], *args: object, **options: object) -> Callable[[], object]:
    return lambda: function(*args, **options)


def thread_seconds(work: Callable[[], object]) -> float:
    """The CPU seconds of this thread. Unlike wall time, they leave out waiting for a busy machine."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


@lru_cache(maxsize=2)
def _values(n_rows: int) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.random.default_rng(1).standard_normal((n_rows, COLUMNS), np.float32)
    values *= np.float32(0.02)
    return values


def _importance() -> NDArray[np.float32]:
    importance: NDArray[np.float32] = np.abs(_values(1)[0]) + np.float32(0.01)
    return importance


def _packed_rows(n_rows: int, tensor_type: TensorType) -> NDArray[np.uint8]:
    return np.empty((n_rows, tensor_type.row_bytes(COLUMNS)), np.uint8)


def _sized_values(tensor_type: TensorType, importance: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """About as many values as the fastest backend quantizes in 20 ms. There are at least as many as a backend with
    0.5 million values a second quantizes in half a second."""
    probe = _values(SMALLEST // COLUMNS)
    work = _bind(
        binding.quantize_rows,
        probe,
        tensor_type,
        _packed_rows(len(probe), tensor_type),
        importance=importance,
        backend=binding.backends()[-1],
    )
    work()
    wanted = int(SMALLEST * 0.02 / thread_seconds(work))
    size = min(max(wanted, SMALLEST), LARGEST)
    return _values(size // COLUMNS) if size >= 2 * SMALLEST else probe


def _as_source(values: NDArray[np.float32], source: str) -> NDArray[Any]:
    if source == "f16":
        return values.astype(np.float16)
    if source == "bf16":
        bits: NDArray[Any] = (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return bits
    return values
