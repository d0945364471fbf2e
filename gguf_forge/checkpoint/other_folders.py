"""Says what a folder is that holds no model in the form of transformers, and what helps.

People give folders of many tools. Each function here knows one kind, and gives an error that names what was found and
the folder or the command that leads to the model. Only names are looked at, apart from a few small files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gguf_forge.checkpoint.shards import has_weights, shard_names
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, UsageError, printable, some_of
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object

# What training leaves beside the weights.
_TRAINING = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state|random_states|sampler)[-_.0-9a-z]*")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# The most entries of a folder that are looked into.
_MOST_ENTRIES = 1000
# The most entries that are listed themselves, which may take long.
_MOST_FOLDERS = 50


def read_config(folder: Folder) -> dict[str, Any]:
    """The object in config.json.

    Raises:
        ForgeError: there is none; the error says what the folder is.
        InputError: the file is broken.
    """
    if not folder.has("config.json"):
        raise _kind_of(folder) or _no_config(folder)
    return read_json_object(folder, "config.json")


def cached_snapshots(repository: str) -> list[Path]:
    """Folders of a hub repository in the cache of huggingface_hub, the newest first."""
    cache = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"
    folder = Path(cache).expanduser() / f"models--{repository.replace('/', '--')}" / "snapshots"
    try:
        return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    except (OSError, ValueError):
        return []


def cached_config(repository: str) -> Path:
    """The newest folder with config.json of a hub repository in the cache of huggingface_hub.

    Raises:
        InputError: there is none.
    """
    for path in cached_snapshots(repository):
        if (path / "config.json").is_file():
            return path
    raise InputError(
        f"the cache of the hub on this machine holds no config.json of {printable(repository)}",
        hint=f"`hf download {printable(repository)} config.json` puts it there; or name its folder with --base",
    )


def no_weights(folder: Folder, *, native: bool = False) -> ForgeError:
    """The error for a folder without files of weights. `native`: they were looked for in Mistral's own form."""
    beginning = "consolidated" if native else "model"
    if native and has_weights(folder):
        hint = "params.json belongs to consolidated*.safetensors: download those, or config.json for what is here"
        if folder.has("config.json"):
            hint = "the model is here in the form of transformers: leave out --mistral-format"
        problem = f"no file is called consolidated*.safetensors; there are: {some_of(shard_names(folder.names()))}"
        return UnsupportedError(problem, file=folder.path, hint=hint)
    return _kind_of(folder) or InputError(
        f"the folder holds no {beginning}*.safetensors", file=folder.path, hint=_download(folder, "the weights")
    )


def _no_config(folder: Folder) -> ForgeError:
    names = folder.names()
    if shard_names(names, native=True):
        hint = "these are weights in Mistral's own form: it also needs params.json, and tekken.json or tokenizer.model"
    elif any(name.endswith(".safetensors") for name in names):
        hint = (
            "put config.json and the tokenizer's files of the same model beside the weights; a folder that "
            "`gguf-forge dequantize --safetensors` wrote needs those of the original"
        )
    elif names:
        hint = "give the folder that holds config.json and the .safetensors files"
    else:
        hint = "the folder is empty"
    return InputError("the file is missing", file=folder.path / "config.json", hint=hint)


def _kind_of(folder: Folder) -> ForgeError | None:
    names = folder.names()[:_MOST_ENTRIES]
    return next((error for kind in _KINDS if (error := kind(folder, names)) is not None), None)


def _hub_cache(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    models = [name for name in names if name.startswith("models--")]
    if models:
        hint = f"give the snapshot of one model: {folder.path / models[0] / 'snapshots'} holds those of the first"
        return UsageError(f"this is the hub's cache, with {len(models)} models", file=folder.path, hint=hint)
    if "snapshots" not in names or not ("refs" in names or "blobs" in names):
        return None
    snapshots = folder.subfolder("snapshots")
    all_of_them = [name for name in _names_below(folder, "snapshots") if not name.startswith(".")]
    whole = [name for name in all_of_them if _holds_model(snapshots, name)]
    if not whole and all_of_them:
        return no_weights(snapshots.subfolder(all_of_them[-1]))
    return UsageError(
        "this is a repository in the hub's cache, and the model is in one of its snapshots",
        file=folder.path,
        hint=f"give {snapshots.path / whole[-1]}" if whole else _download(folder, "the model: it has no snapshot"),
    )


def _diffusers(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    if "model_index.json" not in names:
        return None
    parts = [name for name in names if name.startswith("text_encoder") and folder.has(f"{name}/config.json")]
    hint = "language models and their encoders are converted"
    if parts:
        hint += f"; one may be in {some_of([str(folder.path / name) for name in parts])}"
    return UnsupportedError(
        "this is a pipeline of diffusers, which makes pictures or sound", file=folder.path, hint=hint
    )


def _sharded_states(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    if "zero_to_fp32.py" in names or any(name.startswith("global_step") for name in names):
        what = "DeepSpeed's state of a training run, whose weights are in separate pieces"
        hint = f"put them together: `python zero_to_fp32.py {folder.path} OUT --safe_serialization`, then add "
        return UnsupportedError(f"this is {what}", file=folder.path, hint=f"{hint}config.json and the tokenizer to OUT")
    pieces = [name for name in names if name.startswith("pytorch_model_fsdp") or name.endswith(".distcp")]
    if not pieces:
        return None
    where = folder.path if pieces[0].endswith(".distcp") else folder.path / pieces[0]
    return UnsupportedError(
        "these are weights in the pieces of a distributed checkpoint of PyTorch",
        file=folder.path,
        hint=f"put them together: `accelerate merge-weights {where} OUT`, then add config.json and tokenizer files",
    )


def _one_level_below(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    below = [name for name in names if _holds_model(folder, name)]
    steps = {int(found[1]): name for name in below if (found := re.fullmatch("checkpoint-([0-9]{1,12})", name))}
    if steps:
        newest = steps[max(steps)]
        what = f"this is the folder of a training run, with {len(steps)} checkpoints"
        return UsageError(what, file=folder.path, hint=f"give one of them; the newest is {folder.path / newest}")
    if not below:
        return None
    where = "give " + (f"{folder.path / below[0]}" if len(below) == 1 else f"one of them: {some_of(below)}")
    return UsageError("the model is one level below", file=folder.path, hint=where)


def _languages(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    """The repository of Pocket TTS, whose models have no config.json."""
    below = [f"languages/{name}" for name in _names_below(folder, "languages")] if "languages" in names else []
    whole = [str(folder.path / name) for name in below if has_weights(folder.subfolder(name))]
    if not whole:
        return None
    what = "this is a repository with a model for each language"
    return UsageError(what, file=folder.path, hint=f"give one of them: {some_of(whole)}")


def _holds_model(folder: Folder, name: str) -> bool:
    below = folder.subfolder(name)
    if folder.has(f"{name}/config.json") and has_weights(below):
        return True
    if folder.has(f"{name}/adapter_config.json") and folder.has(f"{name}/adapter_model.safetensors"):
        return True
    return folder.has(f"{name}/params.json") and has_weights(below, native=True)


def _names_below(folder: Folder, name: str) -> tuple[str, ...]:
    """The names in a subfolder; none if this is the name of a file."""
    try:
        return folder.subfolder(name).names()[:_MOST_ENTRIES]
    except InputError:
        return ()


def _gguf(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    files = [name for name in names if name.endswith(".gguf")]
    if not files:  # repositories of GGUF files often have a folder for each type
        below = ((name, file) for name in names[:_MOST_FOLDERS] for file in _names_below(folder, name))
        files = [f"{name}/{file}" for name, file in below if file.endswith(".gguf")]
    if not files:
        return None
    first = next((name for name in files if not name.startswith("mmproj")), files[0])
    what, hint = (
        "the folder holds GGUF files, not a checkpoint",
        f"use `gguf-forge quantize {folder.path / first} TYPE`",
    )
    return UnsupportedError(f"{what}: {some_of(files)}", file=folder.path, hint=hint)


def _of_runtimes(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    for what, is_one in _RUNTIMES.items():
        if any(is_one(name) for name in names) or (what == "ONNX" and folder.has("onnx")):
            hint = f"a model in the form of {what} cannot be turned back: convert the original, in safetensors files"
            return UnsupportedError(
                f"the folder holds a model for {what}, not a checkpoint", file=folder.path, hint=hint
            )
    return None


def _other_frameworks(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    for end, argument in ((".h5", "from_tf=True"), (".msgpack", "from_flax=True")):
        if any(name.endswith(end) for name in names):
            hint = f"load it with transformers ({argument}) and save it with save_pretrained, or look for a copy"
            return UnsupportedError("the weights are files of another framework", file=folder.path, hint=hint)
    if any(name.endswith(".nemo") for name in names):
        hint = "export it to the form of transformers with NeMo"
        return UnsupportedError("the weights are in a .nemo archive", file=folder.path, hint=hint)
    return None


def _other_safetensors(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    files = [name for name in names if name.endswith(".safetensors")]
    if not files or shard_names(names):
        return None
    if "adapter_model.safetensors" in files:
        hint = _download(folder, "adapter_config.json, which belongs to it")
        return InputError("this is an adapter without its adapter_config.json", file=folder.path, hint=hint)
    if not folder.has("config.json"):
        return None
    problem = f"no file is called model*.safetensors; there are: {some_of(files)}"
    if shard_names(files, native=True) and folder.has("params.json"):
        hint = "these are weights in Mistral's own form: read it with --mistral-format"
    elif shard_names(files, native=True):
        hint = "these are weights in Mistral's own form, which needs params.json: download it, or model*.safetensors"
    elif any(name.startswith("diffusion_pytorch_model") for name in files):
        hint = "this is a part of a pipeline of diffusers, not a language model"
    else:
        hint = f"if {some_of(files)} is the whole model, rename it to model.safetensors"
        if len(files) > 1:
            hint = "if they are the whole model, give them names that begin with model"
    return UnsupportedError(problem, file=folder.path, hint=hint)


def _pickles(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    pickles = [name for name in names if name.endswith(_PICKLES)]
    weights = [name for name in pickles if not _TRAINING.fullmatch(name)]
    if not weights and pickles:
        hint = "also save the model itself there with save_pretrained"
        problem = f"the folder holds the state of a training run, and no weights: {some_of(pickles)}"
        return UnsupportedError(problem, file=folder.path, hint=hint)
    if not weights:
        return None
    hint = "save the model as safetensors: load it with transformers where you trust it, then save_pretrained"
    if weights[0].startswith("consolidated.") and folder.has("params.json"):
        hint = "this is Meta's own form: take the model*.safetensors and config.json of the same repository"
        if folder.has("../config.json"):
            hint = f"this is Meta's own form; the form of transformers is one level above: give {folder.path.parent}"
    problem = (
        f"the weights are PyTorch (pickle) files, which are never read, because they can run code: {some_of(weights)}"
    )
    return UnsupportedError(problem, file=folder.path, hint=hint)


def _old_mlx(folder: Folder, names: Sequence[str]) -> ForgeError | None:
    if not any(name.endswith(".npz") for name in names):
        return None
    hint = "make it again with a newer mlx_lm.convert, which writes model.safetensors, or convert the original"
    return UnsupportedError("the weights are in an .npz file of an old version of MLX", file=folder.path, hint=hint)


def _download(folder: Folder, what: str) -> str:
    """The hint to download something, with the command if the path tells the repository of the hub."""
    if any(name.endswith(".incomplete") for name in _names_below(folder, ".cache/huggingface/download")):
        return "a download into this folder is not finished: run the same `hf download` again"
    found = next((part for part in reversed(folder.path.parts) if part.startswith("models--")), "")
    repository = found.removeprefix("models--").replace("--", "/")
    return f"download {what}" + (f": `hf download {repository}`" if repository else "")


_RUNTIMES: dict[str, Callable[[str], bool]] = {
    "OpenVINO": lambda name: name.startswith("openvino_") and name.endswith(".xml"),
    "ONNX": lambda name: name.endswith((".onnx", ".onnx_data")),
    "TensorRT": lambda name: name.endswith(".engine"),
    "Core ML": lambda name: name.endswith((".mlpackage", ".mlmodelc", ".mlmodel")),
    "TensorFlow Lite": lambda name: name.endswith(".tflite"),
    "MLC": lambda name: name in ("mlc-chat-config.json", "ndarray-cache.json"),
}

# In this order: a folder of one kind often holds what is typical for a later one.
_KINDS = (
    _hub_cache,
    _diffusers,
    _other_safetensors,
    _sharded_states,
    _one_level_below,
    _languages,
    _gguf,
    _of_runtimes,
    _pickles,
    _other_frameworks,
    _old_mlx,
)
