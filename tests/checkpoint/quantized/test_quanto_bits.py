"""quanto's weights of 4 and 2 bits, whose stored form does not contain the weight's shape."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16
from quantized_checkpoints import write_safetensors

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.logical import logical_tensors
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.local.folder import LocalFolder

WIDTH = 96


def folder_of(folder: Path, role: str, bits: int, rows: int, group: int, **config: object) -> tuple[Path, np.ndarray]:
    """A checkpoint with one weight, and its values group by group, in the float32 of the library's formula."""
    random = np.random.default_rng(bits)
    codes = random.integers(0, 1 << bits, (rows, group), np.uint8)
    scales, shifts = (random.random((rows, 1), np.float32).astype(bfloat16) for _ in range(2))
    planes = 8 // bits
    height = -(-rows // planes)
    padded = np.zeros((planes * height, group), np.uint8)
    padded[:rows] = codes
    packed = sum(part << bits * plane for plane, part in enumerate(np.split(padded, planes)))
    stem = f"model.layers.0.{role}"
    write_safetensors(
        folder / "model.safetensors",
        {
            f"{stem}.weight._data._data": packed.astype(np.uint8),
            f"{stem}.weight._scale": scales,
            f"{stem}.weight._shift": shifts,
            f"{stem}.input_scale": np.ones(1, np.float32),
        },
    )
    (folder / "config.json").write_text(json.dumps({"hidden_size": WIDTH, **config}))
    (folder / "quanto_qmap.json").write_text("{}")
    return folder, codes.astype(np.float32) * scales.astype(np.float32) - shifts.astype(np.float32)


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize(
    ("role", "rows", "group", "shape"),
    [
        ("self_attn.q_proj", 64, 96, (64, WIDTH)),
        ("self_attn.k_proj", 33, 32, (11, WIDTH)),  # the last stored row is not full
        ("mlp.up_proj", 21, 64, (14, WIDTH)),
        ("mlp.down_proj", 24, 128, (WIDTH, 32)),
        ("self_attn.o_proj", WIDTH, 40, (WIDTH, 40)),
    ],
)
def test_values_are_codes_times_scales_less_shifts(
    bits: int, role: str, rows: int, group: int, shape: tuple[int, int], tmp_path: Path
) -> None:
    folder, values = folder_of(tmp_path, role, bits, rows, group)
    with Checkpoint.of(LocalFolder(folder)) as checkpoint:
        found = logical_tensors(checkpoint)
        assert list(found) == [f"model.layers.0.{role}.weight"]
        (weight,) = found.values()
        assert weight.shape == shape
        np.testing.assert_array_equal(weight.rows(0, weight.n_rows), values.reshape(shape))


@pytest.mark.parametrize(
    ("role", "config", "error", "said"),
    [
        ("mixer.in_proj", {}, UnsupportedError, r"in_proj\.weight: the shape of quanto's weights"),
        ("self_attn.q_proj", {"hidden_size": 100}, InputError, r"q_proj\.weight: .* of width 100"),
        ("self_attn.q_proj", {"hidden_size": "96"}, InputError, "hidden_size is '96'"),
    ],
)
def test_shapes_that_cannot_be_known_are_told(
    role: str, config: dict[str, object], error: type[Exception], said: str, tmp_path: Path
) -> None:
    folder, _ = folder_of(tmp_path, role, 4, 64, 96, **config)
    with Checkpoint.of(LocalFolder(folder)) as checkpoint, pytest.raises(error, match=said):
        logical_tensors(checkpoint)
