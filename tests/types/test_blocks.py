"""The fields of packed blocks, compared with the C headers and with gguf-py's arithmetic."""

from __future__ import annotations

import re
from pathlib import Path

import cffi
import gguf
import numpy as np
import pytest

from gguf_forge import UsageError, quantize, unpack_blocks
from gguf_forge.types.blocks import block_dtype, field_at
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

_HEADER = Path(__file__).resolve().parents[2] / "csrc/blocks.h"
_PACKED = [kind for kind in TENSOR_TYPES.values() if kind.block_elements > 1]


@pytest.mark.parametrize("kind", TENSOR_TYPES.values(), ids=str)
def test_a_block_has_the_size_of_its_type(kind: TensorType) -> None:
    assert block_dtype(kind).itemsize == kind.block_bytes


def _structs() -> cffi.FFI:
    """The structs of the kernels' header, as a C parser reads them."""
    text = re.sub(r"/\*.*?\*/", "", _HEADER.read_text(), flags=re.DOTALL)
    ffi = cffi.FFI()
    ffi.cdef("\n".join(re.findall(r"typedef struct \{.*?\} \w+;", text, re.DOTALL)), packed=True)
    return ffi


@pytest.mark.parametrize("kind", [kind for kind in _PACKED if kind.name not in ("Q8_1", "Q8_K")], ids=str)
def test_the_fields_are_those_of_the_kernels(kind: TensorType) -> None:
    name = re.sub(r"_k$", "_K", kind.name.lower())
    struct = _structs().typeof(f"block_{name}")
    assert struct.fields is not None
    fields = block_dtype(kind).fields
    assert fields is not None
    assert {n: (field.offset, _structs().sizeof(field.type)) for n, field in struct.fields} == {
        n: (offset, item.itemsize) for n, (item, offset, *_) in fields.items()
    }


def _random(kind: TensorType, blocks: int = 8) -> np.ndarray:
    rng = np.random.default_rng(5)
    packed = rng.integers(0, 256, (blocks, kind.block_bytes), np.uint8)
    for at in kind.scales_at:
        packed[:, at + 1] &= 0x3B  # small and finite
    return packed


def _dequantized(packed: np.ndarray, name: str) -> np.ndarray:
    return gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[name])


def test_fields_give_the_values_that_gguf_py_computes() -> None:
    packed = _random(TENSOR_TYPES["Q4_1"])
    blocks = unpack_blocks(packed, "q4_1")
    levels = np.concatenate([blocks["qs"] & 15, blocks["qs"] >> 4], axis=-1)[:, 0].astype(np.float32)
    values = blocks["d"].astype(np.float32) * levels + blocks["m"].astype(np.float32)
    np.testing.assert_array_equal(values, _dequantized(packed, "Q4_1"))


def test_fields_of_a_k_quant_give_the_values_that_gguf_py_computes() -> None:
    packed = _random(TENSOR_TYPES["Q6_K"])
    block = unpack_blocks(packed, "Q6_K")[:, 0]
    ql, qh = block["ql"].reshape(-1, 2, 64), block["qh"].reshape(-1, 2, 32)
    low = np.concatenate([ql & 15, ql >> 4], axis=-1).reshape(-1, 2, 4, 32)
    high = np.stack([qh >> shift & 3 for shift in (0, 2, 4, 6)], axis=2) << 4
    levels = (low | high).astype(np.float32).reshape(-1, 16, 16) - 32
    scales = block["d"].astype(np.float32)[:, None] * block["scales"].astype(np.float32)
    np.testing.assert_array_equal((scales[..., None] * levels).reshape(-1, 256), _dequantized(packed, "Q6_K"))


def test_a_field_is_a_view() -> None:
    packed = quantize(np.ones((2, 64), np.float32), "Q8_0")
    unpack_blocks(packed, "Q8_0")["d"] = 0
    assert not packed[:, [0, 1, 34, 35]].any()


def test_rows_that_lie_apart_are_read_too() -> None:
    packed = np.asfortranarray(quantize(np.ones((4, 64), np.float32), "Q8_0"))
    assert unpack_blocks(packed, "Q8_0").shape == (4, 2)
    assert (unpack_blocks(packed, "Q8_0")["qs"] == 127).all()


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_a_type_that_is_not_packed_has_its_value(name: str) -> None:
    packed = quantize(np.full((1, 3), 1.5, np.float32), name)
    assert unpack_blocks(packed, name)["value"].astype(np.float32).tolist() == [[1.5] * 3]


@pytest.mark.parametrize("kind", TENSOR_TYPES.values(), ids=str)
def test_every_byte_belongs_to_a_field(kind: TensorType) -> None:
    named = [field_at(kind, byte) for byte in range(kind.block_bytes)]
    dtype = block_dtype(kind)
    assert list(dict.fromkeys(name.split("[")[0] for name in named)) == list(dtype.names or ())


@pytest.mark.parametrize(
    ("name", "byte", "field"),
    [("Q4_K", 0, "d"), ("Q4_K", 15, "scales[11]"), ("Q4_K", 143, "qs[127]"), ("IQ2_XXS", 65, "qs[7][1]"),
     ("IQ1_M", 51, "scales[1]"), ("NVFP4", 3, "d[3]"), ("F32", 3, "value")],
)  # fmt: skip
def test_field_names(name: str, byte: int, field: str) -> None:
    assert field_at(TENSOR_TYPES[name], byte) == field


@pytest.mark.parametrize("byte", [-1, 144])
def test_a_byte_that_no_block_has(byte: int) -> None:
    with pytest.raises(UsageError, match="144 bytes"):
        field_at(TENSOR_TYPES["Q4_K"], byte)


@pytest.mark.parametrize("packed", [np.zeros(33, np.uint8), np.zeros((), np.uint8), np.zeros(34, np.int8)])
def test_what_is_no_row_of_blocks(packed: np.ndarray) -> None:
    with pytest.raises(UsageError):
        unpack_blocks(packed, "Q8_0")
