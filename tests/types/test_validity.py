"""The check of packed rows against ggml's own, `ggml_validate_row_data`; and what a conversion says of it."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest
from kernel_oracles import find_oracle
from synthetic import FAMILIES, write_checkpoint

from gguf_forge import convert
from gguf_forge.errors import InputError
from gguf_forge.kernels.binding import quantizable_types
from gguf_forge.types.tensor_type import TENSOR_TYPES
from gguf_forge.types.validity import first_invalid_block, invalid_blocks

ORACLE = find_oracle("pywhispercpp")
# the older ggml that the wheel carries does not know these
KNOWN = sorted({kind.name for kind in quantizable_types()} - {"NVFP4", "Q1_0", "Q2_0"})


@pytest.mark.skipif(ORACLE is None, reason="there is no oracle for this platform")
@pytest.mark.parametrize("name", KNOWN)
def test_it_is_ggml_s_verdict(name: str) -> None:
    """One block for each byte of it and each value of that byte, all other bytes having no or all bits."""
    kind = TENSOR_TYPES[name]
    validate = ORACLE._library.ggml_validate_row_data
    validate.argtypes, validate.restype = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t], ctypes.c_bool
    bytes_ = (
        range(kind.block_bytes)
        if kind.block_bytes < 64
        else [*range(4), *range(kind.block_bytes - 8, kind.block_bytes)]
    )
    blocks = np.repeat(np.array([0, 0x7F, 0x7B], np.uint8), kind.block_bytes).reshape(3, -1)
    blocks = np.repeat(blocks, 256 * len(bytes_), axis=0)
    for number, block in enumerate(blocks):
        block[bytes_[number // 256 % len(bytes_)]] = number % 256
    valid = [validate(kind.id, block.ctypes.data, kind.block_bytes) for block in blocks]
    found = invalid_blocks(blocks, kind)
    assert found is not None
    assert [not invalid for invalid in found] == valid
    assert set(valid) == {True, False}
    first = first_invalid_block(blocks, kind)
    assert first == valid.index(False)


def test_it_is_the_first_block_whatever_the_field() -> None:
    blocks = np.zeros((3, 144), np.uint8)
    blocks[2, 1] = blocks[1, 3] = 0x7C
    assert first_invalid_block(blocks, TENSOR_TYPES["Q4_K"]) == 1


@pytest.mark.parametrize("value", [0x7F80, 0xFF80, 0x7F00], ids=["inf", "-inf", "huge"])
def test_a_conversion_names_the_row_and_leaves_nothing(tmp_path: Path, value: int) -> None:
    folder = write_checkpoint(FAMILIES / "llama3-bpe", tmp_path / "hf")
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + length])["model.layers.0.mlp.down_proj.weight"]
    assert entry["dtype"] == "BF16"
    at = 8 + length + entry["data_offsets"][0] + 2 * (entry["shape"][1] * 7 + 3)
    path.write_bytes(raw[:at] + value.to_bytes(2, "little") + raw[at + 2 :])
    with pytest.raises(InputError, match=r"blk\.0\.ffn_down\.weight: row 7, column"):
        convert(folder, tmp_path / "out.gguf", types="Q8_0", pre_tokenizer="llama-bpe")
    assert list(tmp_path.glob("*.gguf*")) == []
