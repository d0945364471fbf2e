"""The only importer of the compiled kernels: rows of numbers to packed blocks and back.

Two-dimensional views go in and out without a copy, and the GIL is released meanwhile, so threads over row
ranges scale. Shapes and dtypes are checked; the numbers may be any, and the result tells whether all are finite. The
kernels give the bytes of `ggml_quantize_chunk` and the values of ggml's `to_float` on x86-64. Source: ggml-quants.c.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.types.rows import Rows
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

try:
    from gguf_forge._kernels import ffi, lib
except ModuleNotFoundError:  # Python started in a checkout, whose folder hides the installed package.
    raise UnsupportedError(
        "this is the source of gguf-forge, in which the kernels are not compiled",
        file=__file__,
        hint="start Python in another folder, where it finds the installed package; or compile here: pip install -e .",
    ) from None

# What this module needs of the compiled one.
_SYMBOLS = [
    "FORGE_BF16",
    "FORGE_F16",
    "FORGE_F32",
    "FORGE_SEARCH_REFERENCE",
    "forge_backend_lanes",
    "forge_backend_name",
    "forge_backend_usable",
    "forge_can_dequantize",
    "forge_can_quantize",
    "forge_dequantize",
    "forge_exp",
    "forge_is_finite",
    "forge_make_tables",
    "forge_needs_importance",
    "forge_product",
    "forge_quantize",
    "forge_scale_codes",
    "forge_tables_size",
    "forge_unpack_codes",
]
if not all(
    hasattr(lib, symbol) for symbol in _SYMBOLS
):  # The source was updated, and the kernels were not compiled again.
    raise UnsupportedError(
        "the compiled kernels are older than the source of gguf-forge",
        file=__file__,
        hint="compile them again: pip install . (in a checkout that is installed with -e: pip install -e .)",
    )

BACKEND_VARIABLE = "GGUF_FORGE_BACKEND"

# The keys are names of dtypes, so that bf16 needs no import of ml_dtypes. A plain uint16 holds the bits of a bf16.
_SOURCES = {
    "float32": lib.FORGE_F32,
    "float16": lib.FORGE_F16,
    "bfloat16": lib.FORGE_BF16,
    "uint16": lib.FORGE_BF16,
}


@cache
def _usable() -> dict[str, int]:
    found, index = {}, 0
    while (name := lib.forge_backend_name(index)) != ffi.NULL:
        if lib.forge_backend_usable(index):
            found[ffi.string(name).decode()] = index
        index += 1
    return found


def backends() -> tuple[str, ...]:
    """Names of the backends that this machine can run, from the most portable to the fastest.

    Example:
        >>> backends()[0]
        'portable'
    """
    return tuple(_usable())


def backend_lanes(backend: str) -> int:
    """Sub-blocks that the named backend works on at once."""
    return int(lib.forge_backend_lanes(_backend_index(backend)))


def default_backend() -> str:
    """The backend used where none is named: that of GGUF_FORGE_BACKEND, else the fastest.

    Raises:
        UsageError: the variable names a backend that this machine cannot run.
    """
    name = os.environ.get(BACKEND_VARIABLE, "")
    if not name:
        return backends()[-1]
    if name not in _usable():
        raise UsageError(
            f"{BACKEND_VARIABLE} names the backend {name!r}, which this machine cannot run",
            hint=f"unset it, or use one of: {', '.join(backends())}",
        )
    return name


def _backend_index(name: str | None) -> int:
    if name is None:
        name = default_backend()
    if name not in _usable():
        raise UsageError(f"this machine cannot run a backend {name!r}", hint=f"use one of: {', '.join(backends())}")
    return _usable()[name]


@cache
def quantizable_types() -> frozenset[TensorType]:
    """The types that `quantize_rows` can write."""
    return frozenset(tensor_type for tensor_type in TENSOR_TYPES.values() if lib.forge_can_quantize(tensor_type.id))


@cache
def dequantizable_types() -> frozenset[TensorType]:
    """The types that `dequantize_rows` can read."""
    return frozenset(tensor_type for tensor_type in TENSOR_TYPES.values() if lib.forge_can_dequantize(tensor_type.id))


@cache
def types_needing_importance() -> frozenset[TensorType]:
    """The types that `quantize_rows` can't write without importance."""
    return frozenset(tensor_type for tensor_type in TENSOR_TYPES.values() if lib.forge_needs_importance(tensor_type.id))


def table_bytes(tensor_type: TensorType) -> int:
    """Bytes of tables that the process keeps after it first packs to `tensor_type`; 0 for most types."""
    return int(lib.forge_tables_size(tensor_type.id))


@cache
def _tables(tensor_type: TensorType):  # type: ignore[no-untyped-def]
    """The lookup tables for packing to `tensor_type`. They are made at first use, which takes up to 0.1 s, and kept."""
    size = table_bytes(tensor_type)
    if not size:
        return ffi.NULL
    tables = ffi.new("uint32_t[]", -(-size // 4))
    lib.forge_make_tables(tensor_type.id, tables)
    return tables


def _checked_importance(
    importance: NDArray[np.float32] | None, n_per_row: int, tensor_type: TensorType
) -> NDArray[np.float32] | None:
    """The importance of each column as the kernels read it; UsageError if it does not fit, or is missing."""
    if importance is None:
        if tensor_type in types_needing_importance():
            raise UsageError(
                f"{tensor_type} needs an importance matrix",
                hint="give its columns with importance=",
            )
        return None
    if importance.dtype != np.float32 or importance.shape != (n_per_row,):
        raise UsageError(f"importance must be float32 ({n_per_row},), not {_describe(importance)}")
    return np.require(importance, requirements=["C", "A"])


def quantize_rows(
    rows: NDArray[np.generic],
    tensor_type: TensorType,
    out: NDArray[np.uint8],
    *,
    importance: NDArray[np.float32] | None = None,
    backend: str | None = None,
) -> bool:
    """Packs rows into `out`, with the bytes that llama.cpp makes.

    Args:
        rows: Array (n_rows, n_per_row), C-contiguous, of float32, float16, ml_dtypes' bfloat16, or uint16
            holding the bits of bf16 values. Need not be aligned.
        tensor_type: The type to pack to.
        out: Writable array (n_rows, tensor_type.row_bytes(n_per_row)), C-contiguous.
        importance: Of each column, (n_per_row,), none negative; or None.
        backend: One of `backends()`; the default one if None.

    Returns:
        Whether the rows and the packed ones are finite: no value and no scale is infinite or NaN.

    Raises:
        UsageError: a shape, dtype or backend is wrong.
        UnsupportedError: no kernel packs this type.

    Example:
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> packed = np.empty((2, 34), np.uint8)
        >>> quantize_rows(np.ones((2, 32), np.float32), TensorType.named("Q8_0"), packed)
        True
        >>> int(packed[0, 2])
        127
    """
    if tensor_type not in quantizable_types():
        raise UnsupportedError(f"this version cannot quantize to {tensor_type}", hint="choose another type")
    source = _SOURCES.get(_name(rows.dtype))
    if source is None:
        raise UsageError(f"cannot quantize {rows.dtype.name} values", hint="convert them to float32")
    if rows.ndim != 2 or not rows.flags.c_contiguous:
        raise UsageError(f"rows must be a C-contiguous array of two axes, not {_describe(rows)}")
    n_rows, n_per_row = rows.shape
    _check_packed(out, n_rows, n_per_row, tensor_type)
    if not out.flags.writeable:
        raise UsageError("packed rows must be writable")
    importance = _checked_importance(importance, n_per_row, tensor_type)
    if not rows.size:
        return True
    # The request holds only addresses. These variables keep the arrays behind the addresses alive.
    data = _pointer(rows, "uint8_t[]")
    columns = ffi.NULL if importance is None else _pointer(importance, "float[]")
    request = {
        "data": data,
        "importance": columns,
        "tables": _tables(tensor_type),
        "nrows": n_rows,
        "n_per_row": n_per_row,
        "source": source,
        "search": lib.FORGE_SEARCH_REFERENCE,
        "type": tensor_type.id,
    }
    return bool(lib.forge_quantize(_backend_index(backend), ffi.new("forge_request *", request), _pointer(out)))


def dequantize_rows(
    packed: NDArray[np.uint8], tensor_type: TensorType, out: NDArray[np.float32], *, backend: str | None = None
) -> None:
    """Unpacks rows into float32, with the values that ggml's `to_float` gives.

    Args:
        packed: Array (n_rows, tensor_type.row_bytes(n_per_row)), C-contiguous.
        tensor_type: The type that it holds.
        out: Writable float32 array (n_rows, n_per_row), C-contiguous and aligned.
        backend: One of `backends()`; the default one if None.

    Raises:
        UsageError: a shape, dtype or backend is wrong.
        UnsupportedError: no kernel unpacks this type.

    Example:
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> values = np.empty((1, 32), np.float32)
        >>> dequantize_rows(np.zeros((1, 34), np.uint8), TensorType.named("Q8_0"), values)
        >>> float(values.max())
        0.0
    """
    if tensor_type not in dequantizable_types():
        raise UnsupportedError(f"this version cannot dequantize {tensor_type}", hint="choose another type")
    if out.dtype != np.float32 or out.ndim != 2 or not out.flags.carray:
        raise UsageError(f"values must be a writable C-contiguous float32 array, not {_describe(out)}")
    _check_packed(packed, out.shape[0], out.shape[1], tensor_type)
    if out.size:
        values = _pointer(out, "float[]")
        lib.forge_dequantize(_backend_index(backend), tensor_type.id, _pointer(packed), values, out.size)


def unpack_codes(
    streams: NDArray[np.generic], bits: int, out: NDArray[np.uint8], *, order: NDArray[np.uint8] | None = None
) -> None:
    """Unpacks codes from streams of bits, the lowest bits first, into one byte each.

    Args:
        streams: (n, W), one stream in each row: uint8 without gaps in a row, or uint32 with any distances, so that a
            transposed view has the streams of columns.
        bits: Of a code, 1 to 8.
        out: Writable, (n, codes of a stream). The codes of a stream, or those of one place, are next to each other.
        order: Of each 32 codes of a stream, which one each place of the result gets; None for the order of the stream.

    Raises:
        UsageError: a shape, dtype or number does not fit.

    Example:
        >>> codes = np.empty((1, 8), np.uint8)
        >>> unpack_codes(np.array([[0x87654321]], np.uint32), 4, codes)
        >>> codes.tolist()
        [[1, 2, 3, 4, 5, 6, 7, 8]]
    """
    stream_bytes = streams.shape[-1] * streams.itemsize
    if streams.ndim != 2 or streams.dtype not in (np.uint8, np.uint32) or not 1 <= bits <= 8:
        raise UsageError(f"codes of {bits} bits cannot be unpacked from {_describe(streams)}")
    if streams.itemsize == 1 and streams.shape[1] > 1 and streams.strides[1] != 1:
        raise UsageError("the bytes of a stream must follow one another")
    if out.dtype != np.uint8 or out.ndim != 2 or len(out) != len(streams) or out.shape[1] * bits > 8 * stream_bytes:
        raise UsageError(f"{_describe(streams)} cannot be unpacked to {_describe(out)}")
    if not out.flags.writeable or (out.size and 1 not in out.strides):
        raise UsageError("codes must be writable, and next to each other along one axis")
    if order is not None and (order.dtype != np.uint8 or order.shape != (32,) or order.max() > 31):
        raise UsageError("an order must be 32 uint8 numbers below 32")
    if out.size:
        to_columns = out.strides[1] != 1
        # The request holds only addresses. This variable keeps the order behind its address alive.
        order = None if order is None else np.require(order, requirements="C")
        request = {
            "data": _address(streams),
            "n_streams": len(streams),
            "stream_step": streams.strides[0],
            "word_step": streams.strides[1] if streams.itemsize == 4 else 4,
            "stream_bytes": stream_bytes,
            "n_codes": out.shape[1],
            "dst_step": out.strides[to_columns],
            "order": ffi.NULL if order is None else _address(order),
            "bits": bits,
            "to_columns": to_columns,
        }
        lib.forge_unpack_codes(ffi.new("forge_codes *", request), _address(out))


def scale_codes(
    codes: NDArray[np.uint8] | None,
    levels: NDArray[np.float32] | None,
    numbers: tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None],
    scale_rows: NDArray[np.int64],
    runs: tuple[NDArray[np.int64], NDArray[np.int64]],
    out: NDArray[np.float32],
) -> None:
    """Fills `out` with (level - zero) * scale + shift, in operations of float32 that are rounded one by one.

    Args:
        codes: (n, C), C-contiguous; None if `out` holds the levels already.
        levels: Of each of the 256 codes.
        numbers: The scales, zeros and shifts: (m, groups) each, or None for no zeros or shifts.
        scale_rows: For each row, which row of the numbers is its own.
        runs: The columns in runs that share their numbers: the first column of each, and the group of each.
        out: Writable float32, (n, C), C-contiguous.

    Raises:
        UsageError: a shape, dtype or number does not fit.

    Example:
        >>> out, one = np.empty((1, 2), np.float32), np.array([[0.5]], np.float32)
        >>> levels, at = np.arange(256, dtype=np.float32), np.zeros(1, np.int64)
        >>> scale_codes(np.array([[3, 4]], np.uint8), levels, (one, None, None), at, (at, at), out)
        >>> out.tolist()
        [[1.5, 2.0]]
    """
    scales, (starts, groups) = numbers[0], runs
    n_rows, n_columns = out.shape
    bounds = np.append(starts, n_columns)
    _check_numbers(numbers, scale_rows, groups)
    if len(scale_rows) != n_rows or len(starts) != len(groups) or bounds[0] != 0 or (np.diff(bounds) < 0).any():
        raise UsageError(f"the runs and rows do not fit values {_describe(out)}")
    if out.dtype != np.float32 or not out.flags.carray:
        raise UsageError(f"values must be a writable C-contiguous float32 array, not {_describe(out)}")
    if codes is not None and (codes.shape != out.shape or codes.itemsize != 1 or not codes.flags.c_contiguous):
        raise UsageError(f"codes must be C-contiguous bytes {out.shape}, not {_describe(codes)}")
    if (codes is None) != (levels is None) or (
        levels is not None and (levels.dtype != np.float32 or levels.shape != (256,))
    ):
        raise UsageError("codes need 256 float32 levels")
    if out.size:
        # The request holds only addresses. These variables keep the arrays behind the addresses alive.
        kept = [None if each is None else np.require(each, requirements=["C", "A"]) for each in (levels, *numbers)]
        indices = [np.require(each, np.int64, ["C", "A"]) for each in (scale_rows, bounds, groups)]
        request = {
            **dict(zip(("levels", "scales", "zeros", "shifts"), map(_floats, kept), strict=True)),
            **dict(zip(("scale_rows", "starts", "groups"), map(_indices, indices), strict=True)),
            "codes": ffi.NULL if codes is None else _address(codes),
            "n_rows": n_rows,
            "n_columns": n_columns,
            "n_groups": scales.shape[1],
            "n_runs": len(groups),
        }
        lib.forge_scale_codes(ffi.new("forge_scaled *", request), _floats(out))


def _check_numbers(
    numbers: tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None],
    scale_rows: NDArray[np.int64],
    groups: NDArray[np.int64],
) -> None:
    """Raises UsageError unless rows and groups name numbers that are there. Arguments as for `scale_codes`."""
    scales = numbers[0]
    for given in numbers:
        if given is not None and (given.dtype != np.float32 or given.shape != scales.shape or given.ndim != 2):
            raise UsageError(f"scales, zeros and shifts must be float32 of one shape, not {_describe(given)}")
    for what, each, below in (("scale_rows", scale_rows, len(scales)), ("groups", groups, scales.shape[1])):
        if each.dtype != np.int64 or each.ndim != 1 or (each.size and (each.min() < 0 or each.max() >= below)):
            raise UsageError(f"{what} must be int64 numbers below {below}")


def is_finite(rows: Rows, tensor_type: TensorType, *, backend: str | None = None) -> bool:
    """Whether no value of rows, or of packed ones no scale, is infinite or NaN. False, too, for types without kernels,
    of which nothing is known.

    Args:
        rows: C-contiguous; values of a float type, or bytes of any other.
        tensor_type: What they hold.
        backend: One of `backends()`; the default one if None.

    Example:
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> is_finite(np.array([1, np.inf], np.float32), TensorType.named("F32"))
        False
    """
    if tensor_type not in dequantizable_types():
        return False
    n = rows.nbytes // tensor_type.block_bytes * tensor_type.block_elements
    return not n or bool(lib.forge_is_finite(_backend_index(backend), tensor_type.id, _pointer(rows), n))


def exp_values(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """e to the power of each value, with the bits of torch's `exp` (see csrc/exp.c).

    Example:
        >>> exp_values(np.array([0.0, 1.0], np.float32)).tolist()
        [1.0, 2.7182817459106445]
    """
    values = np.ascontiguousarray(values, np.float32)
    out = np.empty_like(values)
    if out.size:
        lib.forge_exp(_pointer(values, "float[]"), _pointer(out, "float[]"), out.size)
    return out


def product(b: NDArray[np.float32], a: NDArray[np.float32], *, backend: str | None = None) -> NDArray[np.float32]:
    """B (n, ranks) times A (ranks, C): sums from zero over the ranks in their order, each operation rounded by itself.

    Raises:
        UsageError: the shapes do not go together.

    Example:
        >>> product(np.array([[1, 2]], np.float32), np.array([[3, 4, 5], [6, 7, 8]], np.float32)).tolist()
        [[15.0, 18.0, 21.0]]
    """
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != len(a):
        raise UsageError(f"matrices {b.shape} and {a.shape} have no product")
    b, a = (np.require(each, np.float32, ["C", "A"]) for each in (b, a))
    out = np.zeros((len(b), a.shape[1]), np.float32)
    if out.size and len(a):
        sizes = len(b), len(a), a.shape[1]
        lib.forge_product(_backend_index(backend), _floats(b), _floats(a), _floats(out), *sizes)
    return out


def _check_packed(packed: NDArray[np.uint8], n_rows: int, n_per_row: int, tensor_type: TensorType) -> None:
    if n_per_row % tensor_type.block_elements:
        raise UsageError(
            f"a row of {n_per_row} values is not a whole number of {tensor_type} blocks of "
            f"{tensor_type.block_elements}",
            hint="choose a type with smaller blocks, such as Q8_0 or F16",
        )
    shape = (n_rows, tensor_type.row_bytes(n_per_row))
    if packed.dtype != np.uint8 or packed.shape != shape or not packed.flags.c_contiguous:
        raise UsageError(f"packed rows must be C-contiguous uint8 {shape}, not {_describe(packed)}")


def _describe(array: NDArray[np.generic]) -> str:
    layout = "" if array.flags.c_contiguous else ", not contiguous"
    return f"{array.dtype.name} {array.shape}{layout}"


@cache
def _name(dtype: np.dtype[np.generic]) -> str:
    """The name of a dtype, which NumPy makes anew each time."""
    name: str = dtype.name
    return name


def _pointer(array: NDArray[np.generic], ctype: str = "char[]") -> Any:
    """The address of the array's bytes, taken without a buffer because Python's buffers do not know bfloat16."""
    return ffi.from_buffer(ctype, array.view(np.uint16) if _name(array.dtype) == "bfloat16" else array)


def _address(array: NDArray[np.generic]) -> Any:
    """The address of the first value of an array, whose values may lie apart."""
    return ffi.cast("uint8_t *", array.ctypes.data)


def _floats(array: NDArray[np.float32] | None) -> Any:
    return ffi.NULL if array is None else ffi.from_buffer("float[]", array)


def _indices(array: NDArray[np.int64]) -> Any:
    return ffi.from_buffer("int64_t[]", array)
