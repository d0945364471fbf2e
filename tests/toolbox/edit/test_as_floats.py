"""Tensors of a file as floats: blocks of NVFP4 are put together with their scales."""

from __future__ import annotations

import numpy as np

from gguf_forge.tensors.stored import Constant, Integers
from gguf_forge.toolbox.edit.as_floats import ScaledMatrices, as_floats
from gguf_forge.types.tensor_type import NVFP4


def _blocks(*shape: int) -> Constant:
    """Zeros of NVFP4."""
    return Constant(np.zeros((*shape[:-1], NVFP4.row_bytes(shape[-1])), np.uint8), NVFP4)  # type: ignore[arg-type]


def test_each_matrix_has_its_scale() -> None:
    matrices = Constant(np.ones((2, 3, 4), np.float32))
    scaled = ScaledMatrices(matrices, Constant(np.array([2, 3], np.float32)))
    assert scaled.take(np.array([0, 5, 2])).tolist() == [[2] * 4, [3] * 4, [2] * 4]
    assert ScaledMatrices(matrices, Constant(np.array([5], np.float32))).take(np.array([4])).tolist() == [[5] * 4]


def test_scales_of_blocks_are_no_tensors_of_their_own() -> None:
    one = Constant(np.ones(1, np.float32))
    found = as_floats(
        {
            "blk.0.ffn_up.weight": _blocks(2, 64),
            "blk.0.ffn_up.scale": one,
            "blk.0.ffn_up.input_scale": one,
            "blk.0.attn_output.weight": one,
            "blk.0.attn_output.scale": one,
            "table": Integers((1, 2)),
        }
    )
    assert list(found) == ["blk.0.ffn_up.weight", "blk.0.attn_output.weight", "blk.0.attn_output.scale", "table"]
    assert isinstance(found["table"], Integers)
