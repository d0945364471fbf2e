"""Folders of other tools: each error names what was found and what helps."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama
from memory import MemoryFolder

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, UsageError
from gguf_forge.planning.open_model import open_model

CONFIG, WEIGHTS = "config.json", "model.safetensors"

# The files of a folder -> the kind of the error, a part of what it says, and of its hint with FOLDER for the path.
FOLDERS = {
    "hub cache": (["models--a--b/snapshots/0/config.json"], UsageError, "the hub's cache, with 1", "snapshots"),
    "repository in the hub cache": (
        ["refs/main", "blobs/1", f"snapshots/0a/{CONFIG}", f"snapshots/0a/{WEIGHTS}"],
        UsageError,
        "a repository in the hub's cache",
        "give FOLDER/snapshots/0a",
    ),
    "half of a repository": (
        ["refs/main", "blobs/1", f"snapshots/0a/{CONFIG}"],
        InputError,
        "holds no model*.safetensors",
        "download the weights",
    ),
    "nothing of a repository": (
        ["refs/main", "blobs/1", "snapshots/.x"],
        UsageError,
        "a repository in the hub's cache",
        "download the model: it has no snapshot",
    ),
    "repository of GGUF files": (
        ["refs/main", "blobs/1", "snapshots/0a/a-Q4_K_M.gguf"],
        UnsupportedError,
        "GGUF files",
        "quantize FOLDER/snapshots/0a/a-Q4_K_M.gguf",
    ),
    "repository of pickles": (
        ["refs/main", f"snapshots/0a/{CONFIG}", "snapshots/0a/pytorch_model.bin"],
        UnsupportedError,
        "pickle",
        "save_pretrained",
    ),
    "GGUF below": ([CONFIG, "Q8_0/a-Q8_0.gguf"], UnsupportedError, "GGUF files", "quantize FOLDER/Q8_0/a-Q8_0.gguf"),
    "a download that was stopped": (
        [CONFIG, ".cache/huggingface/download/x.incomplete"],
        InputError,
        "holds no model*.safetensors",
        "is not finished",
    ),
    "one level below": (
        [f"Small/{CONFIG}", f"Small/{WEIGHTS}"],
        UsageError,
        "one level below",
        "FOLDER/Small",
    ),
    "several below": (
        [f"{name}/{file}" for name in ("a", "b") for file in (CONFIG, WEIGHTS)],
        UsageError,
        "one level below",
        "one of them: a, b",
    ),
    "adapter below": (
        ["x/adapter_config.json", "x/adapter_model.safetensors"],
        UsageError,
        "one level below",
        "FOLDER/x",
    ),
    "training run": (
        [f"checkpoint-{step}/{file}" for step in (90, 1000, 200) for file in (CONFIG, WEIGHTS)],
        UsageError,
        "with 3 checkpoints",
        "the newest is FOLDER/checkpoint-1000",
    ),
    "training run with its config": (
        [CONFIG, "training_args.bin", "checkpoint-5/adapter_config.json", "checkpoint-5/adapter_model.safetensors"],
        UsageError,
        "with 1 checkpoints",
        "FOLDER/checkpoint-5",
    ),
    "state of a training run": (
        [CONFIG, "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"],
        UnsupportedError,
        "no weights",
        "save_pretrained",
    ),
    "DeepSpeed": (
        ["global_step100/mp_rank_00_model_states.pt", "latest", "zero_to_fp32.py", CONFIG],
        UnsupportedError,
        "DeepSpeed's state",
        "zero_to_fp32.py FOLDER OUT --safe_serialization",
    ),
    "FSDP": (
        ["pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata", "optimizer.bin"],
        UnsupportedError,
        "distributed checkpoint",
        "accelerate merge-weights FOLDER/pytorch_model_fsdp_0 OUT",
    ),
    "FSDP itself": (["__0_0.distcp"], UnsupportedError, "distributed", "merge-weights FOLDER OUT"),
    "PyTorch": ([CONFIG, "pytorch_model.bin"], UnsupportedError, "pickle", "save_pretrained"),
    "Meta": (["params.json", "consolidated.00.pth"], UnsupportedError, "pickle", "Meta's own form"),
    "GGUF": ([CONFIG, "a.gguf", "mmproj-a.gguf"], UnsupportedError, "GGUF files", "quantize FOLDER/a.gguf"),
    "ONNX": ([CONFIG, "model.onnx", "model.onnx_data"], UnsupportedError, "ONNX", "the original"),
    "ONNX below": ([CONFIG, "onnx/model.onnx"], UnsupportedError, "ONNX", "the original"),
    "OpenVINO": ([CONFIG, "openvino_model.bin", "openvino_model.xml"], UnsupportedError, "OpenVINO", "the original"),
    "TensorRT": ([CONFIG, "rank0.engine"], UnsupportedError, "TensorRT", "the original"),
    "MLC": (["mlc-chat-config.json", "params_shard_0.bin"], UnsupportedError, "MLC", "the original"),
    "TensorFlow": ([CONFIG, "tf_model.h5"], UnsupportedError, "another framework", "from_tf=True"),
    "Flax": ([CONFIG, "flax_model.msgpack"], UnsupportedError, "another framework", "from_flax=True"),
    "NeMo": (["a.nemo"], UnsupportedError, ".nemo", "NeMo"),
    "old MLX": ([CONFIG, "weights.npz"], UnsupportedError, "old version of MLX", "mlx_lm.convert"),
    "diffusers": (
        ["model_index.json", f"text_encoder/{CONFIG}", f"text_encoder/{WEIGHTS}", f"unet/{CONFIG}"],
        UnsupportedError,
        "diffusers",
        "FOLDER/text_encoder",
    ),
    "part of diffusers": (
        [CONFIG, "diffusion_pytorch_model.safetensors"],
        UnsupportedError,
        "no file is called model*",
        "diffusers",
    ),
    "adapter without its config": (["adapter_model.safetensors"], InputError, "adapter", "adapter_config.json"),
    "another name": (
        [CONFIG, "llama.safetensors"],
        UnsupportedError,
        "no file is called model*",
        "rename it to model",
    ),
    "other names": (
        [CONFIG, "a.safetensors", "b.safetensors"],
        UnsupportedError,
        "no file is called",
        "begin with",
    ),
    "Mistral's form, too": (
        [CONFIG, "params.json", "consolidated.safetensors"],
        UnsupportedError,
        "no file is called model*",
        "--mistral-format",
    ),
    "Mistral's weights": (
        [CONFIG, "consolidated.safetensors"],
        UnsupportedError,
        "no file is called",
        "needs params.json",
    ),
    "Mistral's weights alone": (["consolidated.safetensors"], InputError, "missing", "needs params.json"),
    "no config": ([WEIGHTS], InputError, "the file is missing", "dequantize --safetensors"),
    "no weights": ([CONFIG, "tokenizer.json"], InputError, "holds no model*.safetensors", "download the weights"),
    "something else": (["notes.txt"], InputError, "the file is missing", "the folder that holds config.json"),
    "nothing": ([], InputError, "the file is missing", "the folder is empty"),
}


@pytest.mark.parametrize(("files", "kind", "problem", "hint"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_is_named(tmp_path: Path, files: list[str], kind: type[ForgeError], problem: str, hint: str) -> None:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    with pytest.raises(ForgeError) as caught, open_model(tmp_path):
        pass
    assert type(caught.value) is kind
    assert problem in caught.value.problem
    assert hint.replace("FOLDER", str(tmp_path)) in str(caught.value.words.hint)


def test_a_folder_anywhere_is_named_in_the_same_way() -> None:
    folder = MemoryFolder(Path("memory"), {f"below/{CONFIG}": b"{}", f"below/{WEIGHTS}": b""})
    with pytest.raises(UsageError, match="one level below"):
        Checkpoint.of(folder)


def test_the_repository_of_a_snapshot_is_named(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--small--llama-1b" / "snapshots" / "0a"
    snapshot.mkdir(parents=True)
    (snapshot / CONFIG).write_text("{}")
    with pytest.raises(InputError) as caught:
        Checkpoint.open(snapshot)
    assert caught.value.hint == "download the weights: `hf download small/llama-1b`"


def test_the_model_lies_above_the_form_of_meta(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    original = model / "original"
    original.mkdir()
    for name in ("params.json", "consolidated.00.pth", "tokenizer.model"):
        (original / name).write_text("{}")
    with pytest.raises(UnsupportedError) as caught, open_model(original):
        pass
    assert caught.value.hint is not None and caught.value.hint.endswith(f"give {model}")
    with open_model(model):
        pass


def test_mistral_format_for_a_model_in_the_other_form(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    (model / "params.json").write_text("{}")
    with pytest.raises(UnsupportedError) as caught, open_model(model, mistral_format=True):
        pass
    assert "leave out --mistral-format" in str(caught.value.words.hint)


def test_the_name_of_a_repository_that_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such folder") as caught, open_model("small/llama-1b"):
        pass
    assert "hf download small/llama-1b" in str(caught.value.hint)
    snapshot = tmp_path / "hub" / "models--small--llama-1b" / "snapshots" / "0a"
    snapshot.mkdir(parents=True)
    with pytest.raises(InputError, match="no such folder") as caught, open_model("small/llama-1b"):
        pass
    assert caught.value.hint == f"a copy of it is in the hub's cache: give {snapshot}"
