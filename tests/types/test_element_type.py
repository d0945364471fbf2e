"""The stored types of checkpoints: their sizes, and the numbers that NumPy reads from their bytes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from ml_dtypes import finfo
from safetensors import SafetensorError, deserialize

from gguf_forge.types.element_type import ELEMENT_TYPES

TYPES = pytest.mark.parametrize("name", ELEMENT_TYPES)


def test_they_are_the_types_of_the_safetensors_library() -> None:
    """Its message about an unknown type lists all that it knows."""
    header = json.dumps({"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 1]}}).encode()
    with pytest.raises(SafetensorError, match="unknown variant") as error:
        deserialize(len(header).to_bytes(8, "little") + header + b"0")
    assert set(re.findall("`(\\w+)`", str(error.value))) - {"X"} == set(ELEMENT_TYPES)


@TYPES
def test_an_array_of_the_type_has_its_bytes(name: str) -> None:
    element = ELEMENT_TYPES[name]
    assert str(element) == name
    assert element.row_bytes(32) * 8 == 32 * element.bits
    assert element.nbytes((3, 2, 32)) == 6 * element.row_bytes(32)
    assert element.dtype.itemsize * 8 == (8 if element.is_packed else element.bits)
    assert element.dtype.byteorder != ">"


@TYPES
def test_no_type_passes_for_weights(name: str) -> None:
    """Not even F32: a tensor type says that, once the checkpoint has made weights of what it stores."""
    assert not ELEMENT_TYPES[name].is_float


@pytest.mark.parametrize(
    ("name", "byte", "value"),
    [
        ("F8_E4M3", 0x7E, 448.0),
        ("F8_E4M3", 0x01, 2.0**-9),
        ("F8_E5M2", 0x7B, 57344.0),
        ("F8_E4M3FNUZ", 0x7F, 240.0),
        ("F8_E5M2FNUZ", 0x7F, 57344.0),
        ("F8_E8M0", 0x7F, 1.0),
        ("F8_E8M0", 0x80, 2.0),
        ("I8", 0xFF, -1.0),
    ],
)
def test_a_byte_is_the_number_of_its_format(name: str, byte: int, value: float) -> None:
    stored = np.array([byte], np.uint8).view(ELEMENT_TYPES[name].dtype)
    assert stored.astype(np.float32)[0] == value


@pytest.mark.parametrize(("name", "largest"), [("F16", 65504.0), ("BF16", 3.3895313892515355e38), ("F8_E4M3", 448.0)])
def test_floats_have_their_range(name: str, largest: float) -> None:
    assert float(finfo(ELEMENT_TYPES[name].dtype).max) == largest
