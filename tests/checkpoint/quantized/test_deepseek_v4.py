"""FP4 and FP8 with scales that are powers of two, under DeepSeek V4's names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gguf_forge.checkpoint.quantized.deepseek_v4 import SCHEME
from gguf_forge.checkpoint.quantized.scheme import Quantization
from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Constant, StoredElements
from gguf_forge.types.element_type import ELEMENT_TYPES

_QUANTIZATION = Quantization({"quant_method": "fp8"}, LocalFolder(Path("model")))


class Bytes:
    """A source over bytes."""

    path = Path("memory")

    def __init__(self, data: bytes):
        self.size, self._data = len(data), np.frombuffer(data, np.uint8)

    def read(self, offset: int, nbytes: int, *, at: int = 0) -> np.ndarray:
        return self._data[offset : offset + nbytes].copy()

    def check_unchanged(self) -> None:
        pass


def elements(values: np.ndarray, kind: str) -> StoredElements:
    return StoredElements("t", Bytes(values.tobytes()), 0, values.shape, ELEMENT_TYPES[kind])


def test_scales_go_into_their_weights() -> None:
    ones = np.full((3, 130), 0x38, np.uint8)  # 1.0 in e4m3
    scales = np.array([[128, 126]], np.uint8)  # 2 and a half
    packed, exponents = np.full((2, 16), 0x21, np.uint8), np.full((2, 1), 127, np.uint8)
    norm = Constant(np.ones(3, np.float32))
    stored: dict[str, TensorExpr] = {
        "wq.scale": elements(scales, "F8_E8M0"),
        "wq.weight": elements(ones, "F8_E4M3"),
        "w1.weight": elements(packed, "I8"),
        "w1.scale": elements(exponents, "F8_E8M0"),
        "norm.weight": norm,
    }
    assert SCHEME.fits(_QUANTIZATION, stored)
    logical = SCHEME.logical(stored, _QUANTIZATION)
    assert list(logical) == ["wq.weight", "w1.weight", "norm.weight"]
    assert logical["norm.weight"] is norm
    wanted = np.repeat(np.array([[2.0, 0.5]], np.float32), [128, 2], axis=1).repeat(3, axis=0)
    np.testing.assert_array_equal(logical["wq.weight"].rows(0, 3), wanted)
    assert (logical["w1.weight"].dtype.name, logical["w1.weight"].shape) == ("MXFP4", (2, 32))
    # codes 1 and 2 take turns; ggml's low nibbles are the first half of a block, which begins with its scale
    assert logical["w1.weight"].rows(0, 1).tolist() == [[127, *[0x11, 0x22] * 8]]


def test_other_fp8_checkpoints_are_not_taken() -> None:
    assert not SCHEME.fits(_QUANTIZATION, {"w.weight_scale_inv": Constant(np.ones((1, 1), np.float32))})
    assert not SCHEME.fits(Quantization({"quant_method": "gptq"}, LocalFolder(Path("model"))), {})


def test_what_does_not_fit_is_named() -> None:
    lonely = {"w1.scale": elements(np.zeros((1, 1), np.uint8), "F8_E8M0")}
    with pytest.raises(InputError, match=r"w1\.scale"):
        SCHEME.logical(lonely, _QUANTIZATION)
    with pytest.raises(InputError, match=r"w1\.weight"):
        SCHEME.logical({**lonely, "w1.weight": elements(np.zeros((2, 16), np.uint8), "I8")}, _QUANTIZATION)
