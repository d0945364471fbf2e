"""Weights that are infinite or not a number are refused for every type, wherever they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_llama
from command_line import Forge, listing
from jobs import start

from gguf_forge import InputError, Request, convert, plan_work, split_gguf
from gguf_forge.gguf_file.opened import open_gguf

NAN, INF, MINUS_INF, HUGE = 0x7FC0, 0x7F80, 0xFF80, 0x7F00  # bits of bf16


@pytest.mark.parametrize("file_type", ["Q8_0", "Q4_K_M", "IQ4_XS", "Q6_K", "TQ2_0", "MXFP4_MOE", "F16", "F32", "COPY"])
@pytest.mark.parametrize("file", ["nan.gguf", "inf.gguf"])
def test_quantize_names_the_weight(
    file: str, file_type: str, made: Callable[..., Path], forge: Forge, tmp_path: Path
) -> None:
    run = forge("quantize", made() / file, "out.gguf", file_type)
    assert run.code == InputError.exit_code
    assert "blk.0.ffn_down.weight: row 0, column 5: the weight is infinite or not a number" in run.err
    assert listing(tmp_path / "here") == []


def damaged(folder: Path, name: str, at: int, bits: int, shape: tuple[int, ...] = ()) -> Path:
    """The tiny Llama's checkpoint with other bits in one weight."""
    model = tiny_llama(folder)
    path = model / "model.safetensors"
    raw = bytearray(path.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + length])[name]
    place = 8 + length + entry["data_offsets"][0] + 2 * at
    raw[place : place + 2] = bits.to_bytes(2, "little")
    path.write_bytes(raw)
    return model


@pytest.mark.parametrize("file_type", ["Q4_K_M", "IQ4_NL", "F32", "F16", "BF16", "auto"])
@pytest.mark.parametrize("bits", [NAN, INF, MINUS_INF])
def test_a_checkpoint(tmp_path: Path, file_type: str, bits: int) -> None:
    model = damaged(tmp_path, "model.layers.1.mlp.up_proj.weight", 256 * 3 + 7, bits)
    with pytest.raises(InputError, match=r"blk\.1\.ffn_up\.weight: row 3, column 7: the weight is"):
        convert(model, tmp_path / "out.gguf", types=file_type)
    assert listing(tmp_path) == ["Tiny"]


def test_a_norm_that_is_only_copied(tmp_path: Path) -> None:
    model = damaged(tmp_path, "model.layers.1.input_layernorm.weight", 9, NAN)
    with pytest.raises(InputError, match=r"blk\.1\.attn_norm\.weight: row 0, column 9: the weight is infinite or not"):
        convert(model, tmp_path / "out.gguf", types="Q8_0")


@pytest.mark.parametrize("file_type", ["BF16", "F16"])
def test_as_reference_writes_the_float_files_of_the_converter(tmp_path: Path, file_type: str) -> None:
    model = damaged(tmp_path, "model.layers.1.mlp.up_proj.weight", 256 * 3 + 7, NAN)
    convert(model, tmp_path / "out.gguf", types=file_type, as_reference=True)
    with open_gguf(tmp_path / "out.gguf") as gguf:
        (tensor,) = (tensor for tensor in gguf.tensors if tensor.name == "blk.1.ffn_up.weight")
        numbers = tensor.data().view(tensor.type.dtype).astype(np.float32)
    assert np.flatnonzero(~np.isfinite(numbers)).tolist() == [256 * 3 + 7]
    with pytest.raises(InputError):
        convert(model, tmp_path / "q.gguf", types="Q8_0", as_reference=True)  # llama-quantize refuses, too


@pytest.mark.parametrize("file_types", ["F16,Q8_0", "Q8_0,F16"])
def test_each_file_of_a_run_is_checked_by_its_own_rule(tmp_path: Path, file_types: str) -> None:
    """The norm has the same bytes in both files, and llama-quantize refuses it where the converter does not."""
    model = damaged(tmp_path, "model.layers.1.input_layernorm.weight", 9, NAN)
    with pytest.raises(InputError, match=r"blk\.1\.attn_norm\.weight: row 0, column 9"):
        convert(model, tmp_path / "m-{ftype}.gguf", types=file_types, as_reference=True)
    assert listing(tmp_path) == ["Tiny"]


def test_a_weight_that_the_type_cannot_hold(tmp_path: Path) -> None:
    model = damaged(tmp_path, "model.layers.1.mlp.up_proj.weight", 256 * 3 + 7, HUGE)
    with pytest.raises(InputError, match=r"row 3, column 7: 1\.70141e\+38 is too large for F16; choose BF16 or F32"):
        convert(model, tmp_path / "out.gguf", types="F16")
    convert(model, tmp_path / "out.gguf", types="BF16")


def test_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged(tmp_path, "model.layers.1.mlp.up_proj.weight", 256 * 3 + 7, NAN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    plan_work(Request(source="Tiny", out="out/m.gguf", types=("Q4_K_M",)), tasks=2)
    processes = [start(0), start(1)]
    assert sorted(process.wait() for process in processes) == [0, InputError.exit_code]


def test_a_block_of_a_quantized_source(tmp_path: Path) -> None:
    """Its blocks are copied or unpacked; llama-quantize checks them either way."""
    convert(tiny_llama(tmp_path), tmp_path / "q.gguf", types="Q8_0")
    with open_gguf(tmp_path / "q.gguf") as gguf:
        (tensor,) = (tensor for tensor in gguf.tensors if tensor.name == "blk.0.attn_q.weight")
    raw = bytearray((tmp_path / "q.gguf").read_bytes())
    raw[tensor.offset + 34 * 9 : tensor.offset + 34 * 9 + 2] = b"\0\x7e"
    (tmp_path / "q.gguf").write_bytes(raw)
    for more in ({"types": "COPY"}, {"types": "F16", "allow_requantize": True}):
        with pytest.raises(InputError, match=r"blk\.0\.attn_q\.weight: row 1, column 32: "):
            convert(tmp_path / "q.gguf", tmp_path / "out.gguf", **more)
    assert listing(tmp_path) == ["Tiny", "q.gguf"]


def test_tools_that_copy_do_not_refuse(made: Callable[..., Path], tmp_path: Path) -> None:
    """A file can be taken apart and repaired, and nothing is hidden: `verify` still names the weight."""
    split_gguf(made() / "nan.gguf", tmp_path / "part", max_tensors=5)
