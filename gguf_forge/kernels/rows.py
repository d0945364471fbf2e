"""The public functions on rows: `quantize` packs arrays of numbers to ggml rows, and `dequantize` unpacks them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gguf_forge.errors import UsageError
from gguf_forge.kernels import binding
from gguf_forge.types.blocks import unpack_blocks
from gguf_forge.types.rows import Rows
from gguf_forge.types.tensor_type import VALUE, TensorType

_DTYPES = ("float32", "float16", "bfloat16")


def quantize(
    array: NDArray[np.generic],
    tensor_type: str | TensorType,
    *,
    importance: ArrayLike | None = None,
    backend: str | None = None,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Packs the rows of an array, giving the bytes that llama.cpp's `llama-quantize` gives.

    Args:
        array: Array (..., n) of float32, float16 or ml_dtypes' bfloat16; the last axis is the row, and n a
            multiple of the type's block (32 or 256 values; 1 for F32, F16 and BF16).
        tensor_type: A tensor type such as "Q4_K", in any case.
        importance: Of each column, (n,), finite and not negative: the error in column i counts
            `importance[i]` times. None treats all columns alike.
        backend: One of `gguf_forge.backends()`; the fastest if None. All give the same bytes.
        threads: How many threads share the rows.

    Returns:
        uint8 array (..., b): the last axis is the packed row of b bytes.

    Raises:
        UsageError: the type or backend is unknown, or a shape, dtype or number does not fit.
        UnsupportedError: this version cannot quantize to the type.

    Example:
        >>> quantize(np.ones((4, 256), np.float32), "Q4_K").shape
        (4, 144)
    """
    tensor_type = TensorType.named(tensor_type)
    array = np.asarray(array)
    if array.dtype.name not in _DTYPES:
        raise UsageError(f"cannot quantize {array.dtype.name} values", hint=f"use one of: {', '.join(_DTYPES)}")
    if array.ndim == 0:
        raise UsageError("cannot quantize a single number", hint="give an array whose last axis is the row")
    n = array.shape[-1]
    rows = np.ascontiguousarray(array).reshape(_row_count(array), n)
    out = np.empty((len(rows), tensor_type.row_bytes(n)), np.uint8)
    checked = None if importance is None else _checked_importance(importance, n)
    pack = partial(binding.quantize_rows, tensor_type=tensor_type, importance=checked, backend=backend)
    _over_rows(lambda a, b: pack(rows[a:b], out=out[a:b]), len(rows), threads)
    return out.reshape(*array.shape[:-1], out.shape[1])


def dequantize(
    packed: NDArray[np.uint8], tensor_type: str | TensorType, *, backend: str | None = None, threads: int = 1
) -> NDArray[np.float32]:
    """Unpacks rows, giving the values that ggml computes.

    Args:
        packed: uint8 array (..., b); the last axis is the packed row, a whole number of the type's blocks.
        tensor_type: The tensor type that it holds, such as "Q4_K", in any case.
        backend: One of `gguf_forge.backends()`; the fastest if None. All give the same values.
        threads: How many threads share the rows.

    Returns:
        float32 array (..., n): the last axis is the row of n values.

    Raises:
        UsageError: the type or backend is unknown, or a shape or dtype does not fit.
        UnsupportedError: this version cannot dequantize the type.

    Example:
        >>> dequantize(quantize(np.ones((4, 32), np.float32), "Q8_0"), "Q8_0").shape
        (4, 32)
    """
    tensor_type = TensorType.named(tensor_type)
    packed = np.asarray(packed)
    if packed.dtype != np.uint8:
        raise UsageError(f"packed rows must be uint8, not {packed.dtype.name}", hint="view them as uint8")
    if packed.ndim == 0 or packed.shape[-1] % tensor_type.block_bytes:
        blocks = f"{tensor_type} blocks of {tensor_type.block_bytes} bytes"
        raise UsageError(f"rows of shape {packed.shape} are not a whole number of {blocks}")
    n = packed.shape[-1] // tensor_type.block_bytes * tensor_type.block_elements
    rows = np.ascontiguousarray(packed).reshape(_row_count(packed), packed.shape[-1])
    out = np.empty((len(rows), n), np.float32)
    unpack = partial(binding.dequantize_rows, tensor_type=tensor_type, backend=backend)
    _over_rows(lambda a, b: unpack(rows[a:b], out=out[a:b]), len(rows), threads)
    return out.reshape(*packed.shape[:-1], n)


def as_float32(rows: Rows, tensor_type: TensorType, *, backend: str | None = None) -> NDArray[np.float32]:
    """Rows that an expression gave, as numbers.

    Args:
        rows: Two-dimensional: values of a float type, or bytes of any other.
        tensor_type: What they hold.
        backend: Which kernels; the default is the fastest of this machine.

    Returns:
        float32 array (rows, values); integers and doubles are rounded to it.

    Raises:
        UnsupportedError: no kernel unpacks this type.

    Example:
        >>> from gguf_forge import quantize
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> as_float32(quantize(np.ones((2, 32), np.float32), "Q8_0"), TensorType.named("Q8_0")).shape
        (2, 32)
    """
    if tensor_type.is_float:
        return rows.astype(np.float32)
    rows = np.ascontiguousarray(rows)
    if tensor_type.block_elements == 1:
        with np.errstate(over="ignore"):
            return unpack_blocks(rows, tensor_type)[VALUE].astype(np.float32)
    n_per_row = rows.shape[1] // tensor_type.block_bytes * tensor_type.block_elements
    values = np.empty((rows.shape[0], n_per_row), np.float32)
    binding.dequantize_rows(rows, tensor_type, values, backend=backend)
    return values


def _row_count(array: NDArray[np.generic]) -> int:
    return int(np.prod(array.shape[:-1], dtype=np.int64))


def _checked_importance(importance: ArrayLike, n: int) -> NDArray[np.float32]:
    values = np.asarray(importance, np.float32)
    if values.shape != (n,):
        raise UsageError(f"importance must have shape ({n},), one number for each column, not {values.shape}")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise UsageError("importance holds a negative or non-finite number")
    return values


def _over_rows(task: Callable[[int, int], object], n_rows: int, threads: int) -> None:
    """Runs task(a, b) over row ranges that cover [0, n_rows)."""
    if threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    parts = max(1, min(threads, n_rows))
    edges = [n_rows * part // parts for part in range(parts + 1)]
    if parts == 1:
        task(0, n_rows)
        return
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(task, edges[:-1], edges[1:]))
