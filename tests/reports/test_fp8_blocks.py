"""FP8 with a scale for each block of 128 by 128 weights."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from reports import MadeInput
from tokenizer_folders import edit
from weights import Held, rewritten

from gguf_forge import InputError, convert, open_gguf, plan
from gguf_forge.cli import main


def values(folder: Path, out: Path, types: str = "F32") -> dict[str, np.ndarray]:
    (made,) = convert(folder, out, types=types, pre_tokenizer="qwen2")
    with open_gguf(made.path) as file:
        return {
            tensor.name: np.frombuffer(tensor.data(), np.float32).reshape(tensor.shape[::-1])
            for tensor in file.tensors
            if tensor.type.name == "F32"
        }


def wanted(rows: int, columns: int = 256) -> np.ndarray:
    row, column = np.indices((rows, columns))
    block = -(-columns // 128) * (row // 128) + column // 128
    return (np.array([1, 2, -1, 0.5])[column % 4] * 2.0 ** -(4 + block)).astype(np.float32)


def test_the_weights_are_the_values_times_their_scales(made: MadeInput, tmp_path: Path) -> None:
    found = values(made(), tmp_path / "a.gguf")
    for name in ("attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        np.testing.assert_array_equal(found[f"blk.0.{name}.weight"], wanted(256))
    for name in ("attn_k", "attn_v"):
        np.testing.assert_array_equal(found[f"blk.0.{name}.weight"], wanted(128))


def test_they_become_any_type(made: MadeInput, tmp_path: Path) -> None:
    """All values are exact in bf16, so that a file of it tells nothing else."""
    folder = made()
    (made_of,) = convert(folder, tmp_path / "a.gguf", types="BF16", pre_tokenizer="qwen2")
    with open_gguf(made_of.path) as file:
        (up,) = (tensor for tensor in file.tensors if tensor.name == "blk.0.ffn_up.weight")
        bits = np.frombuffer(up.data(), np.uint16).astype(np.uint32) << 16
        np.testing.assert_array_equal(bits.view(np.float32).reshape(256, 256), wanted(256))
    options = ("--pre-tokenizer", "qwen2")
    assert main(["convert", str(folder), "-t", "Q4_K_M", "-o", str(tmp_path / "q.gguf"), *options]) == 0
    assert main(["verify", str(tmp_path / "q.gguf"), "--source", str(folder), *options]) == 0


def test_the_last_blocks_may_be_partial(made: MadeInput, tmp_path: Path) -> None:
    """The matrices of the feed-forward block lose 56 rows: their last blocks have 72."""

    def shorter(tensors: dict[str, Held]) -> dict[str, Held]:
        for part in ("gate", "up"):
            name = f"model.layers.0.mlp.{part}_proj.weight"
            dtype, (_, columns), data = tensors[name]
            tensors[name] = (dtype, [200, columns], data[: 200 * columns])
        name = "model.layers.0.mlp.down_proj.weight"
        dtype, (rows, columns), data = tensors[name]
        codes = np.frombuffer(data, np.uint8).reshape(rows, columns)[:, :200]
        tensors[name] = (dtype, [rows, 200], codes.tobytes())
        return tensors

    folder = rewritten(made(), tmp_path / "shorter", shorter)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"intermediate_size": 256', '"intermediate_size": 200'))
    found = values(folder, tmp_path / "a.gguf")
    np.testing.assert_array_equal(found["blk.0.ffn_up.weight"], wanted(256)[:200])
    np.testing.assert_array_equal(found["blk.0.ffn_down.weight"], wanted(256)[:, :200])


def test_a_scale_that_is_missing(made: MadeInput, tmp_path: Path) -> None:
    def without(tensors: dict[str, Held]) -> dict[str, Held]:
        del tensors["model.layers.0.mlp.up_proj.weight_scale_inv"]
        return tensors

    with pytest.raises(InputError, match=r"ffn_up\.weight: has codes of type F8_E4M3, and their scales are missing"):
        plan(rewritten(made(), tmp_path / "without", without), pre_tokenizer="qwen2")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_weights_without_scales_and_without_a_word_of_them(made: MadeInput, tmp_path: Path, dtype: str) -> None:
    """Some tools only round to FP8. The codes are those of the report: 1, 2, -1 and 0.5 in e4m3."""

    def rounded(tensors: dict[str, Held]) -> dict[str, Held]:
        kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("_scale_inv")}
        return {
            name: (dtype if kind.startswith("F8") else kind, shape, data) for name, (kind, shape, data) in kept.items()
        }

    folder = rewritten(made(), tmp_path / "rounded", rounded)
    edit(folder / "config.json", lambda config: config.pop("quantization_config"))
    found = values(folder, tmp_path / "a.gguf")["blk.0.ffn_up.weight"]
    codes = np.array([0x38, 0x40, 0xB8, 0x30], np.uint8)
    kind = ml_dtypes.float8_e4m3fn if dtype == "F8_E4M3" else ml_dtypes.float8_e5m2
    np.testing.assert_array_equal(found, np.resize(codes.view(kind).astype(np.float32), (256, 256)))


def test_a_scale_of_another_shape(made: MadeInput, tmp_path: Path) -> None:
    def other(tensors: dict[str, Held]) -> dict[str, Held]:
        name = "model.layers.0.mlp.up_proj.weight_scale_inv"
        dtype, _, data = tensors[name]
        return tensors | {name: (dtype, [4, 1], data)}

    with pytest.raises(InputError, match=r"up_proj"):
        plan(rewritten(made(), tmp_path / "other", other), pre_tokenizer="qwen2")


def test_wrapped_names(made: MadeInput, tmp_path: Path) -> None:
    def wrapped(tensors: dict[str, Held]) -> dict[str, Held]:
        return {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}

    folder = made()
    found = values(rewritten(folder, tmp_path / "wrapped", wrapped), tmp_path / "a.gguf")
    for name, plain in values(folder, tmp_path / "b.gguf").items():
        np.testing.assert_array_equal(found[name], plain)
