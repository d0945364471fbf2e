"""ggml itself, out of two wheels from PyPI, reached by ctypes: what the kernels' bytes are compared with.

On x86-64 only: elsewhere these builds contract multiplications and additions, and differ from one another.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib.util
import mmap
import os
import platform
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.types.tensor_type import TensorType

# What an oracle can't answer: Q2_0 is newer than it, and IQ1_M was changed after it.
OLDER = {"pywhispercpp": ("Q2_0", "IQ1_M")}
# Types whose kernels in ggml check their results, and abort the process over what they find.
CHECKED = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M")

ORACLES = {
    "pywhispercpp": ("pywhispercpp.libs", "libggml-base*.so*"),
    "xllamacpp": ("xllamacpp", "xllamacpp*.so"),
}


class Oracle:
    def __init__(self, path: Path):
        library = ctypes.CDLL(str(path))
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._quantize = library.ggml_quantize_chunk
        self._quantize.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
        self._quantize.restype = ctypes.c_size_t
        self._library = library

    def quantize(
        self, x: NDArray[np.float32], kind: TensorType, importance: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        out = np.zeros((x.shape[0], kind.row_bytes(x.shape[1])), np.uint8)
        self.quantize_into(x, kind, out, importance)
        return out

    def quantize_into(
        self,
        x: NDArray[np.float32],
        kind: TensorType,
        out: NDArray[np.uint8],
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        assert x.dtype == np.float32 and x.flags.c_contiguous
        address = None if importance is None else importance.ctypes.data
        self._quantize(kind.id, x.ctypes.data, out.ctypes.data, 0, x.shape[0], x.shape[1], address)

    def try_quantize(
        self, x: NDArray[np.float32], kind: TensorType, importance: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8] | None:
        """The bytes, or None where ggml aborts; in a child process, for that reason."""
        if kind.name not in CHECKED:
            return self.quantize(x, kind, importance)
        self._library.ggml_quantize_init(kind.id)  # once, in the parent
        shape = (x.shape[0], kind.row_bytes(x.shape[1]))
        shared = mmap.mmap(-1, shape[0] * shape[1])
        out = np.frombuffer(shared, np.uint8).reshape(shape)
        child = os.fork()
        if child == 0:
            faulthandler.disable()
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            os.environ["GGML_NO_BACKTRACE"] = "1"
            self.quantize_into(x, kind, out, importance)
            os._exit(0)
        return out if os.waitpid(child, 0)[1] == 0 else None

    def dequantize(self, packed: NDArray[np.uint8], kind: TensorType) -> NDArray[np.float32]:
        n = packed.shape[1] // kind.block_bytes * kind.block_elements
        out = np.zeros((packed.shape[0], n), np.float32)
        self.dequantize_into(packed, kind, out)
        return out

    def dequantize_into(self, packed: NDArray[np.uint8], kind: TensorType, out: NDArray[np.float32]) -> None:
        name = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}.get(
            kind.name, "dequantize_row_" + kind.name.lower().replace("_k", "_K")
        )
        function = getattr(self._library, name)
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None
        function(packed.ctypes.data, out.ctypes.data, out.size)


@cache
def find_oracle(name: str) -> Oracle | None:
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    package, pattern = ORACLES[name]
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return None
    site = Path(found.origin).parent
    site = site.parent if site.name == name else site
    for path in sorted((site / package).glob(pattern)):
        return Oracle(path)
    return None


def oracle(name: str, kind: TensorType) -> Oracle:
    """The oracle, or a skipped test where it is not installed or does not know the type as it is now."""
    found = find_oracle(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    if kind.name in OLDER.get(name, ()):
        pytest.skip(f"{kind} changed after the ggml in {name}")
    return found


def oracle_names(kind: TensorType) -> list[str]:
    """The oracles that know the type as it is now."""
    return [name for name in ORACLES if kind.name not in OLDER.get(name, ())]
