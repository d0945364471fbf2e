"""MiMo V2's storage: MXFP4 beside FP8, and blocks of FP8 that begin anew in each shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gguf_forge.checkpoint.quantized import fp8
from gguf_forge.checkpoint.quantized.fp4_beside_fp8 import SCHEME
from gguf_forge.checkpoint.quantized.scheme import Quantization
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.element_type import ELEMENT_TYPES


def quantization(**config: object) -> Quantization:
    return Quantization({"quant_method": "fp8", "weight_block_size": [128, 128], **config}, LocalFolder(Path("model")))


_PACKED = quantization(store_dtype="mxfp4")


def bytes_of(*shape: int, value: int) -> Constant:
    return Constant(np.full(shape, value, np.uint8), ELEMENT_TYPES["U8"])


def test_experts_are_repacked_and_the_rest_is_scaled() -> None:
    stored = {
        "e.weight": bytes_of(2, 16, value=0x21),
        "e.weight_scale": bytes_of(2, 1, value=120),
        "w": Constant(np.ones((2, 2), np.float32)),
        "w_scale_inv": Constant(np.full((1, 1), 0.5, np.float32)),
    }
    assert SCHEME.fits(_PACKED, stored)
    assert not SCHEME.fits(quantization(), stored)
    logical = SCHEME.logical(stored, _PACKED)
    assert list(logical) == ["e.weight", "w"]
    assert logical["e.weight"].rows(0, 1).tolist() == [[120, *[0x11, 0x22] * 8]]
    np.testing.assert_array_equal(logical["w"].rows(0, 2), np.full((2, 2), 0.5, np.float32))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="mxfp4_block_size is 16"):
        SCHEME.logical({}, quantization(store_dtype="mxfp4", mxfp4_block_size=16))
    with pytest.raises(InputError, match=r"e\.weight"):
        SCHEME.logical({"e.weight_scale": bytes_of(2, 1, value=1), "e.weight": bytes_of(2, 8, value=1)}, _PACKED)


@pytest.mark.parametrize("shards", [4, 8])
def test_blocks_begin_anew_in_each_shard(shards: int) -> None:
    rows, blocks = 320, (128, 128, 64)
    scales = np.arange(3 * shards, dtype=np.float32)[:, None] + 1
    stored = {"w": Constant(np.ones((shards * rows, 3), np.float32)), "w_scale_inv": Constant(scales)}
    weight = fp8.SCHEME.logical(stored, quantization())["w"]
    wanted = np.repeat(scales[:, 0], blocks * shards)
    assert weight.shape == (shards * rows, 3)
    np.testing.assert_array_equal(weight.rows(0, weight.n_rows)[:, 0], wanted)
    lonely = {**stored, "w_scale_inv": Constant(scales[1:])}
    with pytest.raises(InputError, match="do not fit"):
        fp8.SCHEME.logical(lonely, quantization())
