"""Which rows the kernels call finite, against NumPy's bits and against the fields that ggml checks."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_inputs import case

from gguf_forge.kernels import binding
from gguf_forge.types.tensor_type import TENSOR_TYPES
from gguf_forge.types.validity import invalid_blocks

FLOATS = {"F32": (np.uint32, 23), "F16": (np.uint16, 10), "BF16": (np.uint16, 7)}
PACKED = sorted({kind.name for kind in binding.dequantizable_types()} - set(FLOATS))

every_backend = pytest.mark.parametrize("backend", binding.backends())
every_float = pytest.mark.parametrize("name", FLOATS)


def is_finite(rows: np.ndarray, name: str, backend: str) -> bool:
    return binding.is_finite(rows, TENSOR_TYPES[name], backend=backend)


def patterns(name: str) -> np.ndarray:
    """All of 16 bits; of 32 bits, each sign and exponent with the mantissas at the ends and in the middle."""
    dtype, mantissa = FLOATS[name]
    if dtype == np.uint16:
        return np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    middle = 1 << mantissa - 1
    ends = np.array([0, 1, middle - 1, middle, middle + 1, (1 << mantissa) - 1], np.uint32)
    return (np.arange(512, dtype=np.uint32)[:, None] << mantissa | ends).reshape(-1)


@every_float
@every_backend
def test_every_pattern_alone(backend: str, name: str) -> None:
    bits = patterns(name)
    _, mantissa = FLOATS[name]
    exponent_bits = 8 * bits.itemsize - 1 - mantissa
    finite = (bits >> mantissa) & ((1 << exponent_bits) - 1) != (1 << exponent_bits) - 1
    assert [is_finite(bits[i : i + 1], name, backend) for i in range(len(bits))] == finite.tolist()
    assert is_finite(bits[finite], name, backend)


@every_float
@every_backend
@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_one_anywhere_in_rows_of_every_length(shift: int, sign: int, backend: str, name: str) -> None:
    """Infinity among the greatest finite numbers, with both ends unaligned and infinities beyond both."""
    dtype, mantissa = FLOATS[name]
    width = dtype().itemsize
    infinity = (1 << 8 * width - 1) - (1 << mantissa) | sign << 8 * width - 1
    for length in (*range(67), 127, 128, 129):
        raw = np.full((length + 2) * width + shift, 0xFF, np.uint8)
        row = raw[shift + width : shift + width * (length + 1)].view(dtype)
        row[:] = infinity - 1
        assert is_finite(row, name, backend)
        for at in range(length):
            row[at] = infinity
            assert not is_finite(row, name, backend), (length, at)
            row[at] = infinity - 1


@pytest.mark.parametrize("name", PACKED)
@every_backend
def test_every_byte_of_a_block(backend: str, name: str) -> None:
    """All values of each byte, the other bytes having no or all bits, or half of the exponent's."""
    kind = TENSOR_TYPES[name]
    for others in (0, 0x7F, 0x7B, 0xFF):
        blocks = np.full((kind.block_bytes, 256, kind.block_bytes), others, np.uint8)
        for at in range(kind.block_bytes):
            blocks[at, :, at] = np.arange(256)
        invalid = invalid_blocks(blocks.reshape(-1, kind.block_bytes), kind)
        wanted = [True] * 256 * kind.block_bytes if invalid is None else (~invalid).tolist()
        assert [is_finite(block, name, backend) for block in blocks.reshape(-1, kind.block_bytes)] == wanted


@pytest.mark.parametrize("name", sorted(set(PACKED) - {"NVFP4"}))
@every_backend
def test_one_block_among_others(backend: str, name: str) -> None:
    kind = TENSOR_TYPES[name]
    for count in range(1, 40):
        raw = np.full((count + 2) * kind.block_bytes + 1, 0xFF, np.uint8)
        blocks = raw[1 + kind.block_bytes : -kind.block_bytes].reshape(count, kind.block_bytes)
        blocks[:] = 0
        assert is_finite(blocks, name, backend)
        for at in range(count):
            blocks[at] = 0xFF
            assert not is_finite(blocks, name, backend), (count, at)
            blocks[at] = 0


@every_backend
@pytest.mark.parametrize("name", sorted(kind.name for kind in binding.quantizable_types()))
def test_packing_tells_of_what_it_reads(backend: str, name: str) -> None:
    kind = TENSOR_TYPES[name]
    rows = case("gaussian", 3, 768)
    importance = np.ones(768, np.float32)
    out = np.empty((3, kind.row_bytes(768)), np.uint8)
    for source in (rows, rows.astype(np.float16), (rows.view(np.uint32) >> 16).astype(np.uint16)):
        assert binding.quantize_rows(source, kind, out, importance=importance, backend=backend)
        for bad in (np.inf, -np.inf, np.nan):
            damaged = source.copy()
            damaged[2, 767] = 0x7FC0 if source.dtype == np.uint16 else bad
            assert not binding.quantize_rows(damaged, kind, out, importance=importance, backend=backend)


@every_backend
@pytest.mark.parametrize(("name", "overflows"), [("F16", 1e5), ("BF16", 3.4e38), ("Q8_0", 1e8), ("Q4_K", 1e10)])
def test_packing_tells_of_what_it_writes(overflows: float, name: str, backend: str) -> None:
    """Finite values that the type, or its scales, cannot hold."""
    kind = TENSOR_TYPES[name]
    rows = np.full((1, 256), overflows, np.float32)
    rows[0, ::2] *= -1
    out = np.empty((1, kind.row_bytes(256)), np.uint8)
    assert not binding.quantize_rows(rows, kind, out, backend=backend)
    assert binding.quantize_rows(rows / 10_000, kind, out, backend=backend)


@every_float
@every_backend
def test_q8_0_tells_while_packing_what_two_passes_tell(backend: str, name: str) -> None:
    """What is not finite, and the greatest that is, at each place of a full group of blocks and of one that is not."""
    dtype, mantissa = FLOATS[name]
    kind, sign = TENSOR_TYPES["Q8_0"], 1 << 8 * dtype().itemsize - 1
    infinity, ones = sign - (1 << mantissa), {"F32": 0x3F800000, "F16": 0x3C00, "BF16": 0x3F80}[name]
    row, out = np.full((1, 32 * 19), ones, dtype), np.empty((1, kind.row_bytes(32 * 19)), np.uint8)
    source = row if name == "BF16" else row.view({"F32": np.float32, "F16": np.float16}[name])
    for at in range(row.size):
        for pattern in (infinity - 1, infinity, infinity + 1, sign - 1, sign | infinity, sign | infinity + 1):
            row[0, at] = pattern
            told = binding.quantize_rows(source, kind, out, backend=backend)
            assert told == (is_finite(row, name, backend) and is_finite(out, "Q8_0", backend)), (hex(pattern), at)
        row[0, at] = ones


def test_of_types_without_kernels_nothing_is_known() -> None:
    assert not binding.is_finite(np.zeros(8, np.uint8), TENSOR_TYPES["F64"])


def test_no_rows_are_finite() -> None:
    assert binding.is_finite(np.empty((0, 4), np.float32), TENSOR_TYPES["F32"])
    assert binding.quantize_rows(np.empty((0, 4), np.float32), TENSOR_TYPES["F16"], np.empty((0, 8), np.uint8))
