"""Every row of the table of tensor types says every fact, and the facts are those of the kernels and of gguf-py."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path

import gguf
import numpy as np
import pytest

from gguf_forge import quantize
from gguf_forge.kernels.binding import dequantizable_types, quantizable_types, types_needing_importance
from gguf_forge.types.blocks import block_dtype
from gguf_forge.types.levels import Bits, Grid
from gguf_forge.types.tensor_type import TENSOR_TYPES, ImportanceUse, TensorType

_TESTS = Path(__file__).resolve().parents[1]
_HEADER = (_TESTS.parent / "csrc/blocks.h").read_text()
ROWS = tuple(TENSOR_TYPES.values())
EVERY = pytest.mark.parametrize("row", ROWS, ids=str)
KERNELS = quantizable_types() & dequantizable_types()


def test_no_fact_has_a_default() -> None:
    """So a row that leaves one out is an error at import."""
    assert all(fact.default is MISSING and fact.default_factory is MISSING for fact in fields(TensorType))


def test_names_and_ids_are_unique_and_in_order() -> None:
    ids = [row.id for row in ROWS]
    assert ids == sorted(set(ids))
    assert [row.name for row in ROWS] == list(TENSOR_TYPES)


def test_the_kernels_of_c_have_the_ids_of_the_rows() -> None:
    in_c = {name: int(number) for name, number in re.findall(r"TYPE_(\w+) = (\d+)", _HEADER)}
    assert in_c.pop("COUNT") == max(in_c.values()) + 1
    assert in_c == {row.name: row.id for row in ROWS if row in KERNELS}


@EVERY
def test_blocks_are_those_of_gguf_py_and_of_c(row: TensorType) -> None:
    """gguf-py does not know the newest types, which the header of the kernels has, and has Q8_1 as it was once."""
    known = gguf.GGMLQuantizationType.__members__.get(row.name)
    in_c = re.search(rf"sizeof\(block_{re.sub('_k$', '_K', row.name.lower())}\) == (\d+)", _HEADER)
    if known is not None and row.name != "Q8_1":
        assert (row.id, (row.block_elements, row.block_bytes)) == (known, gguf.GGML_QUANT_SIZES[known])
    if row.is_packed and row in KERNELS:
        assert in_c is not None
        assert row.block_bytes == int(in_c[1])
    assert block_dtype(row).itemsize == row.block_bytes


@EVERY
def test_what_can_be_quantized_to_has_kernels(row: TensorType) -> None:
    assert row.is_target == (row in KERNELS)
    assert (row.levels is not None) == (row.is_packed and row in KERNELS)
    assert row.is_float == (row.name in ("F32", "F16", "BF16"))
    assert row.dtype.itemsize == (row.block_bytes if row.is_float else 1)


@EVERY
def test_codes_lie_in_fields_of_the_block(row: TensorType) -> None:
    if row.levels is None:
        return
    scheme, block = row.levels, block_dtype(row)
    assert row.block_elements % scheme.values_per_scale == 0
    assert set(scheme.codes.masks) <= set(block.names or ())
    if isinstance(scheme.codes, Grid):
        assert scheme.values_per_scale % scheme.codes.size == 0
        assert scheme.codes.first in scheme.values
        assert scheme.has_offset == (scheme.codes.last is not None)
        return
    zeros = np.zeros(2, block)
    assert scheme.codes.read(zeros).shape == (2, row.block_elements)
    if isinstance(scheme.codes, Bits):
        bits = scheme.codes.bits + (scheme.codes.high.bits if scheme.codes.high else 0)
        assert len(scheme.values) in (2**bits, 2**bits - 1)
    filled = np.full(row.block_bytes, scheme.fill, np.uint8).view(block)
    assert set(scheme.codes.read(filled).ravel().tolist()) <= set(range(1, scheme.highest + 1))


@EVERY
def test_each_scale_of_a_target_is_validated(row: TensorType) -> None:
    block = block_dtype(row)
    numbers = {name for name in block.names or () if block[name].kind == "f"}
    checked = dict(row.exponents)
    assert numbers <= set(checked) or not row.is_target
    for name, bits in checked.items():
        assert 0 < bits < 1 << 8 * block[name].itemsize
        if name in numbers:  # infinity has these bits, and no others but the sign
            infinity = np.full(1, np.inf, block[name]).view(f"<u{block[name].itemsize}")
            assert int(infinity[0]) == bits


@EVERY
def test_f16_scales_stand_where_their_fields_begin(row: TensorType) -> None:
    offsets = [offset for item, offset, *_ in block_dtype(row).fields.values() if item == np.float16]  # type: ignore
    assert list(row.scales_at) == (offsets if row.is_packed else [])


@EVERY
def test_importance_changes_bytes_where_it_is_used(row: TensorType) -> None:
    assert (row in types_needing_importance()) == (row.importance == ImportanceUse.NEEDED)
    if row not in KERNELS:
        assert row.importance == ImportanceUse.IGNORED
        return
    rng = np.random.default_rng(6)
    values = rng.standard_normal((8, 256)).astype(np.float32)
    weighed = [quantize(values, row, importance=rng.random(256).astype(np.float32) ** 4 + 0.01) for _ in range(2)]
    assert np.array_equal(*weighed) == (row.importance == ImportanceUse.IGNORED)


@EVERY
def test_a_fallback_has_smaller_blocks(row: TensorType) -> None:
    if row.fallback is not None:
        fallback = TENSOR_TYPES[row.fallback]
        assert fallback.is_target
        assert fallback.block_elements < row.block_elements


def test_what_is_swappable_is_what_gguf_py_can_swap() -> None:
    """The newest types have no number of more than a byte but their scale."""
    script = pytest.importorskip("gguf.scripts.gguf_convert_endian")
    swapped = {row.name for row in ROWS if row.is_packed and row.is_swappable}
    assert swapped == {known.name for known in script.byteswap_tensors} | {"Q1_0", "TQ1_0", "TQ2_0", "NVFP4"}


@EVERY
def test_the_file_type_is_called_after_the_tensor_type(row: TensorType) -> None:
    named = {known.value: known.name.partition("_")[2] for known in gguf.LlamaFileType}
    if row.file_type in named:
        assert named[row.file_type] in (row.name, f"{row.name}_M")
    else:
        assert row.file_type is None or row.file_type > max(number for number in named if number < 1024)


def test_types_whose_bytes_fused_arithmetic_changes_are_fusible() -> None:
    changed = json.loads((_TESTS / "toolbox/verify/fused_blocks.json").read_text())
    assert {block["type"] for block in changed} <= {row.name for row in ROWS if row.is_fusible}
