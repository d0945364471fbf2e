from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_llama
from command_line import listing
from quantized import make_base
from safetensors import safe_open
from safetensors.numpy import load_file
from synthetic import FAMILIES, write_checkpoint

from gguf_forge import (
    ForgeError,
    InputError,
    Options,
    OutputError,
    RefusedError,
    UnsupportedError,
    UsageError,
    convert,
    dequantize,
    dequantize_gguf,
    edit_gguf,
    open_gguf,
    quantize_gguf,
    split_gguf,
)
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.toolbox.edit.dequantize import plan_dequantized


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint and files of it."""
    folder = tmp_path_factory.mktemp("made")
    source = tiny_llama(folder)
    results = convert(source, folder, types=["BF16", "Q4_K_M", "F16"])
    return {"hf": source, **{result.file.file_type.name: result.path for result in results}}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_the_file_that_quantizing_to_a_float_type_makes(made: dict[str, Path], kind: str, tmp_path: Path) -> None:
    """tests/quantized.json pins that it is the one of llama-quantize."""
    found = dequantize_gguf(made["Q4_K_M"], tmp_path / "a.gguf", file_type=kind.lower())
    options = Options(allow_requantize=True)
    (wanted,) = quantize_gguf(made["Q4_K_M"], tmp_path / "b.gguf", types=kind, options=options)
    assert found.path.read_bytes() == wanted.path.read_bytes()
    assert found.file.file_type.name == kind


@pytest.mark.parametrize(("source", "kind"), [("Q4_K_M", "F32"), ("BF16", "BF16"), ("F16", "F16")])
def test_the_type_when_none_is_given(made: dict[str, Path], source: str, kind: str, tmp_path: Path) -> None:
    with open_gguf(made[source]) as gguf:
        assert plan_dequantized(gguf, tmp_path / "a.gguf").file_type.name == kind
        assert plan_dequantized(gguf, tmp_path / "a", safetensors=True).file_type.name == kind


def test_names_when_none_is_given(made: dict[str, Path], tmp_path: Path) -> None:
    with open_gguf(made["Q4_K_M"]) as gguf:
        beside = made["Q4_K_M"].parent
        assert plan_dequantized(gguf).path == beside / "Tiny-1.2M-F32.gguf"
        assert plan_dequantized(gguf, tmp_path).path == tmp_path / "Tiny-1.2M-F32.gguf"
        folder = beside / "Tiny-1.2M-BF16"
        assert plan_dequantized(gguf, file_type="BF16", safetensors=True).path == folder / "model.safetensors"
    first = split_gguf(made["Q4_K_M"], tmp_path / "any-name", max_tensors=9).path
    with open_gguf(first) as gguf:
        assert plan_dequantized(gguf).path == tmp_path / "any-name-F32.gguf"


def test_a_checkpoint_comes_back(made: dict[str, Path], tmp_path: Path) -> None:
    """Read by the safetensors library: the tensors that the file was made of, to the last bit."""
    path = dequantize_gguf(made["BF16"], tmp_path / "ck", safetensors=True).path
    assert listing(tmp_path / "ck") == ["model.safetensors"]
    with safe_open(path, "np") as found, Checkpoint.open(made["hf"]) as wanted:
        assert found.metadata() == {"format": "pt"}
        assert set(found.keys()) == set(wanted.tensors)
    with Checkpoint.open(made["hf"]) as wanted:
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size])
        for name, tensor in wanted.tensors.items():
            start, stop = header[name]["data_offsets"]
            assert header[name]["dtype"] == "BF16"
            assert raw[8 + size + start : 8 + size + stop] == tensor.source.read(tensor.offset, tensor.nbytes).tobytes()


def test_several_files_and_an_index(made: dict[str, Path], tmp_path: Path) -> None:
    result = dequantize_gguf(made["Q4_K_M"], tmp_path / "ck", safetensors=True, max_size=2_000_000)
    assert result.path == tmp_path / "ck" / "model.safetensors.index.json"
    index = json.loads(result.path.read_text())
    names = sorted(set(index["weight_map"].values()))
    assert listing(tmp_path / "ck") == [*names, result.path.name]
    assert len(names) > 1
    alone = load_file(dequantize_gguf(made["Q4_K_M"], tmp_path / "one", safetensors=True).path)
    parts = {name: load_file(tmp_path / "ck" / name) for name in names}
    assert index["metadata"]["total_size"] == sum(values.nbytes for values in alone.values())
    assert {name: file for file, tensors in parts.items() for name in tensors} == index["weight_map"]
    assert all(sum(v.nbytes for v in part.values()) <= 2_000_000 for part in parts.values())
    for name, values in alone.items():
        assert np.array_equal(parts[index["weight_map"][name]][name], values)
    Checkpoint.open(_with_config(made, tmp_path / "ck")).close()


def _with_config(made: dict[str, Path], folder: Path) -> Path:
    for file in made["hf"].iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_values_are_those_of_the_blocks(made: dict[str, Path], tmp_path: Path) -> None:
    found = load_file(dequantize_gguf(made["Q4_K_M"], tmp_path / "ck", safetensors=True).path)
    with open_gguf(made["Q4_K_M"]) as gguf:
        tensor = next(t for t in gguf.tensors if t.name == "blk.1.ffn_down.weight")
        packed = tensor.source.read(tensor.offset, tensor.nbytes).reshape(tensor.info.n_rows, -1)
        assert np.array_equal(found["model.layers.1.mlp.down_proj.weight"], dequantize(packed, tensor.type))


@pytest.mark.parametrize("family", ["gptoss-mxfp4", "gptoss-bf16"])
def test_experts_of_blocks(family: str, tmp_path: Path) -> None:
    path = make_base(family, "auto", tmp_path)
    found = dequantize_gguf(path, tmp_path / "ck", file_type="F32", safetensors=True)
    values = load_file(found.path)["model.layers.0.mlp.experts.gate_up_proj"]
    with open_gguf(path) as gguf:
        tensors = {t.name: t for t in gguf.tensors}
        for first, role in enumerate(("gate", "up")):
            tensor = tensors[f"blk.0.ffn_{role}_exps.weight"]
            packed = tensor.source.read(tensor.offset, tensor.nbytes).reshape(tensor.info.n_rows, -1)
            expected = dequantize(packed, tensor.type).reshape(tensor.shape[::-1])
            assert np.array_equal(values[:, :, first::2], expected.transpose(0, 2, 1))


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_make_no_difference(made: dict[str, Path], threads: int, tmp_path: Path) -> None:
    one = dequantize_gguf(made["Q4_K_M"], tmp_path / "one", safetensors=True, file_type="BF16", threads=threads)
    other = dequantize_gguf(made["Q4_K_M"], tmp_path / "other", safetensors=True, file_type="BF16", backend="portable")
    assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize(
    ("error", "arguments", "problem"),
    [
        (UsageError, {"file_type": "Q4_K_M"}, "Q4_K_M is not a float type; choose F32, F16, BF16"),
        (UsageError, {"file_type": "auto"}, "auto is not a float type"),
        (UsageError, {"file_type": "X"}, "unknown file type"),
        (UsageError, {"max_size": 0, "safetensors": True}, "room for something"),
        (OutputError, {"out": "file/folder", "safetensors": True}, "Not a directory"),
        (OutputError, {"out": "file", "safetensors": True}, "Not a directory"),
    ],
)
def test_what_makes_no_sense(
    made: dict[str, Path], error: type[ForgeError], arguments: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / arguments.pop("out", "out")
    with pytest.raises(error, match=problem):
        dequantize_gguf(made["Q4_K_M"], out, **arguments)
    assert listing(tmp_path) == ["file"]


def test_a_folder_that_was_made_in_vain(made: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        dequantize_gguf(made["Q4_K_M"], tmp_path / "ck", safetensors=True, threads=0)
    assert listing(tmp_path) == []


def test_what_is_there_stays(made: dict[str, Path], tmp_path: Path) -> None:
    dequantize_gguf(made["BF16"], tmp_path / "ck", safetensors=True)
    before = (tmp_path / "ck" / "model.safetensors").read_bytes()
    with pytest.raises(RefusedError, match="already exists"):
        dequantize_gguf(made["Q4_K_M"], tmp_path / "ck", safetensors=True)
    assert (tmp_path / "ck" / "model.safetensors").read_bytes() == before


def test_a_vocabulary_alone_is_no_checkpoint(made: dict[str, Path], tmp_path: Path) -> None:
    path = convert(made["hf"], tmp_path / "v.gguf", vocab_only=True)[0].path
    with pytest.raises(InputError, match="the file has no tensors"):
        dequantize_gguf(path, tmp_path / "ck", safetensors=True)


def test_an_architecture_without_a_way_back(made: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    edit_gguf(made["Q4_K_M"], path, set={"general.architecture": "unheard"})
    with pytest.raises(UnsupportedError, match="the way back to a checkpoint is not known for architecture unheard"):
        dequantize_gguf(path, tmp_path / "ck", safetensors=True)
    assert not (tmp_path / "ck").exists()


def test_a_config_with_other_heads_is_refused(made: dict[str, Path], tmp_path: Path) -> None:
    """It would put the rows of queries and keys back in a wrong order."""
    config = json.loads((made["hf"] / "config.json").read_text())
    config["num_attention_heads"] *= 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"attention\.head_count is \d+ by the config, and \d+ in the file"):
        dequantize_gguf(made["F16"], tmp_path / "back", safetensors=True, config=tmp_path)
    assert not (tmp_path / "back").exists()
    dequantize_gguf(made["F16"], tmp_path / "back", safetensors=True, config=made["hf"])


def test_a_count_of_layers_that_no_model_has(made: dict[str, Path], tmp_path: Path) -> None:
    """Keys of each layer would take all memory."""
    edit_gguf(made["F16"], tmp_path / "deep.gguf", set={"llama.block_count": (1 << 32) - 1}, force=True)
    with pytest.raises(InputError, match=r"llama\.block_count is 4294967295, which no model has"):
        dequantize_gguf(tmp_path / "deep.gguf", tmp_path / "back", safetensors=True, config=made["hf"])


def test_heads_of_each_layer_are_compared(tmp_path: Path) -> None:
    model = write_checkpoint(FAMILIES / "openelm", tmp_path / "hf")
    (result,) = convert(model, tmp_path / "model.gguf", types="F16")
    config = json.loads((model / "config.json").read_text())
    config["num_kv_heads"] = list(reversed(config["num_kv_heads"]))
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"attention\.head_count_kv is .* by the config, and .* in the file"):
        dequantize_gguf(result.path, tmp_path / "back", safetensors=True, config=tmp_path)
