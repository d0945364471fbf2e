"""What stands beside tensors of NVFP4 blocks."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge.architectures.block_scales import block_scales
from gguf_forge.errors import UnsupportedError
from gguf_forge.tensors.joined import Stack, concat
from gguf_forge.tensors.packed import RepackNvfp4
from gguf_forge.tensors.row_maps import permute_rope
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.element_type import ELEMENT_TYPES


def matrix(scale: float, input_scale: float = 1.0) -> RepackNvfp4:
    codes = Constant(np.zeros((8, 32), np.uint8), ELEMENT_TYPES["U8"])
    scales = Constant(np.zeros((8, 4), ELEMENT_TYPES["F8_E4M3"].dtype), ELEMENT_TYPES["F8_E4M3"])
    return RepackNvfp4(codes, scales, scale, input_scale)


def told(expr: object) -> dict[str, list[float]]:
    return {end: values.tolist() for end, values in block_scales(expr)}  # type: ignore[arg-type]


def test_a_matrix_has_its_scales_wherever_its_rows_are() -> None:
    assert told(permute_rope(matrix(0.5, 0.25), 2)) == {".scale": [0.5], ".input_scale": [0.25]}


@pytest.mark.parametrize(("scale", "is_written"), [(1.0, False), (1 + 5e-7, False), (1 + 5e-6, True)])
def test_a_scale_near_to_1_is_not_written(scale: float, is_written: bool) -> None:
    assert (".scale" in told(matrix(scale))) is is_written


def test_experts_have_a_scale_each_unless_all_are_near_to_1() -> None:
    assert told(Stack((matrix(1.0), matrix(0.5)))) == {".scale": [1.0, 0.5]}
    assert told(Stack((matrix(1.0), matrix(1 + 5e-6)))) == {}


def test_matrices_with_scales_of_their_own_make_no_single_one() -> None:
    assert told(concat((matrix(0.5), matrix(0.5)))) == {".scale": [0.5]}
    with pytest.raises(UnsupportedError, match="2 matrices of NVFP4 blocks"):
        told(concat((matrix(0.5), matrix(0.25))))
