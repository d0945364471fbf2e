"""Back to floats: a GGUF file as one of F32, F16 or BF16, or as the checkpoint that it was made of."""

from __future__ import annotations

import json
import os
import sys
from os import PathLike
from pathlib import Path

from gguf_forge.architectures.origins import COPIED_ROW
from gguf_forge.architectures.reverse import lead_back
from gguf_forge.checkpoint.adapter import WEIGHTS
from gguf_forge.checkpoint.adapter_config import CONFIG
from gguf_forge.checkpoint.mistral_form import PARAMS
from gguf_forge.checkpoint.safetensors_layout import checkpoint_file, checkpoint_shards
from gguf_forge.engine.batches import Shard
from gguf_forge.errors import InputError, UsageError
from gguf_forge.foreign_text import file_name
from gguf_forge.gguf_file.layout import Layout
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.split import PartName
from gguf_forge.planning.adapter_of_file import adapter_of_file, is_adapter_file
from gguf_forge.planning.file_plan import FilePlan, WrittenFile, make_files
from gguf_forge.planning.from_gguf import GgufModel
from gguf_forge.planning.model_of_file import model_of_file
from gguf_forge.planning.splits import Split
from gguf_forge.recipe import FILE_TYPES, FileType, Options
from gguf_forge.request import Request
from gguf_forge.run_settings import Observer, RunSettings
from gguf_forge.storage.paths import is_folder
from gguf_forge.toolbox.edit.as_floats import as_floats
from gguf_forge.types.tensor_type import TENSOR_TYPES
from gguf_forge.wording import log_of

_FLOATS = tuple(name for name, known in TENSOR_TYPES.items() if known.is_float)
# The largest file that the Hub's own tools write when they cut a checkpoint into several.
_MAX_SIZE = 5_000_000_000

log = log_of(__name__)

_LEFT_OUT = (
    f"{COPIED_ROW} is left out: it is one row of the language model's embeddings. A conversion of the projector needs "
    "these embeddings, so lead the language model's file back into the same checkpoint"
)


def dequantize_gguf(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    file_type: str | None = None,
    safetensors: bool = False,
    max_size: int | None = None,
    config: str | PathLike[str] | None = None,
    threads: int | None = None,
    backend: str | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> WrittenFile:
    """Unpacks a GGUF file: to the one that llama-quantize makes with --allow-requantize, or to a checkpoint's tensors.

    A checkpoint's tensors have Hugging Face's names, shapes and order of rows: experts are apart again, rotary rows in
    two halves, what was added to norms is taken away. They go next to the config.json and the tokenizer of the model,
    which a GGUF file does not have. Tensors that the model has in further files, such as `1_Dense/model.safetensors`,
    are written to these. The file of a LoRA adapter becomes the folder that PEFT loads.

    Args:
        source: The file; of a split one the first.
        out: A file or folder; with `safetensors` a folder, which is made. None for NAME-TYPE.gguf, or the folder
            NAME-TYPE, next to the file.
        file_type: "F32", "F16" or "BF16"; None for that of a float file, and F32 for all others.
        safetensors: Write a checkpoint's tensors.
        max_size: The most bytes of tensors in one file. If it is None, a checkpoint is cut into files of at most 5 GB,
            and a GGUF file is not cut.
        config: The model's config.json (in Mistral's own form, params.json), or its folder. It names the class whose
            names the tensors get, and has what the file lacks. If it is None, they get those of the class that fits
            the file best. An adapter's file needs that of its base model; None for one in the hub's cache.
        threads, backend, overwrite, observer: How it is run; see `RunSettings`.

    Returns:
        The files, in `file.shards`, and the seconds it took.

    Raises:
        UsageError: the type is none of the three.
        InputError: the file is damaged, or there is nothing in it for a checkpoint.
        UnsupportedError: the architecture, or tensors, cannot be led back to a checkpoint; all are named.
        ForgeError: what was wrong, where, and what to do; nothing is left under the final names.

    Example:
        >>> dequantize_gguf("Qwen3-0.6B-Q4_K_M.gguf", "qwen3", file_type="BF16", safetensors=True)  # doctest: +SKIP
    """
    run = RunSettings(threads=threads, backend=backend, overwrite=overwrite, observer=observer)
    with open_gguf(source) as gguf:
        plan = plan_dequantized(
            gguf, out, file_type=file_type, safetensors=safetensors, max_size=max_size, config=config
        )
        return make_dequantized(plan, run)


def make_dequantized(plan: FilePlan, run: RunSettings) -> WrittenFile:
    """Writes the planned files, and tells the warnings of the plan first."""
    for warning in plan.warnings:
        log.warning("%s", warning)
    return make_files([plan], run)[0]


def plan_dequantized(
    gguf: GgufFile,
    out: str | PathLike[str] | None = None,
    *,
    file_type: str | None = None,
    safetensors: bool = False,
    max_size: int | None = None,
    config: str | PathLike[str] | None = None,
) -> FilePlan:
    """What `dequantize_gguf` would write of an opened file, with the same arguments; valid while the file is open."""
    float_type = _target(gguf, file_type)
    split = Split(max_size=max_size)
    if not safetensors:
        if config is not None:
            raise UsageError("a config is for the tensors of a checkpoint", hint="add --safetensors, or leave it out")
        place = _beside(gguf, f"{float_type}.gguf")
        target = place if out is None else Path(out) / place.name if is_folder(Path(out)) else Path(out)
        request = Request(source=os.fspath(gguf.paths[0]), out=os.fspath(target), types=(float_type.name,))
        return GgufModel(gguf).files(request, Options(allow_requantize=True), split, Path())[0]
    if not gguf.tensors:
        raise InputError("the file has no tensors", file=gguf.paths[0])
    folder = _beside(gguf, float_type.name) if out is None else Path(out)
    if is_adapter_file(gguf.typed_metadata):
        if split:
            raise UsageError("an adapter is one file", hint="leave out the size of files")
        return _plan_of_adapter(gguf, folder, float_type, Path(config) if config is not None else None)
    model = model_of_file(gguf.typed_metadata, Path(config)) if config is not None else None
    stem = "consolidated" if model is not None and model.class_name == PARAMS else "model"
    floats = as_floats({tensor.name: tensor.expression() for tensor in gguf.tensors})
    led_back, kind = lead_back(gguf.typed_metadata, floats, model).by_file(), TENSOR_TYPES[float_type.name]
    own = led_back.pop(None, {})
    shards = checkpoint_shards(folder, own, kind, split.max_size or _MAX_SIZE, stem=stem) if own else ()
    modules = (checkpoint_file(folder / str(path), tensors, kind) for path, tensors in led_back.items())
    return FilePlan(
        file_type=float_type,
        metadata={},
        shards=(*shards, *modules),
        fallbacks=(),
        warnings=tuple(_LEFT_OUT for tensor in gguf.tensors if tensor.name == COPIED_ROW),
        source_bytes=sum(tensor.nbytes for tensor in gguf.tensors),
        inputs=gguf.paths,
    )


def _plan_of_adapter(gguf: GgufFile, folder: Path, float_type: FileType, config: Path | None) -> FilePlan:
    """The folder of an adapter, as PEFT writes it."""
    floats = as_floats({tensor.name: tensor.expression() for tensor in gguf.tensors})
    adapter = adapter_of_file(gguf.typed_metadata, floats, config)
    text = json.dumps(adapter.config, indent=2, ensure_ascii=False).encode() + b"\n"
    kind, stem = TENSOR_TYPES[float_type.name], WEIGHTS.removesuffix(".safetensors")
    # The config is first in the list, so it gets its name last: a folder without it holds no adapter.
    return FilePlan(
        file_type=float_type,
        metadata={},
        shards=(
            Shard(folder / CONFIG, Layout(text, (), len(text)), ()),
            *checkpoint_shards(folder, adapter.tensors, kind, sys.maxsize, stem=stem),
        ),
        fallbacks=(),
        warnings=(),
        source_bytes=sum(tensor.nbytes for tensor in gguf.tensors),
        inputs=gguf.paths,
    )


def _target(gguf: GgufFile, wanted: str | None) -> FileType:
    if wanted is None:
        if is_adapter_file(gguf.typed_metadata):  # it has no file type
            types = {tensor.type.name for tensor in gguf.tensors if len(tensor.shape) > 1}
            return FILE_TYPES[types.pop() if len(types) == 1 and types <= set(_FLOATS) else "F32"]
        number = gguf.metadata.get("general.file_type")
        return next((FILE_TYPES[name] for name in _FLOATS if FILE_TYPES[name].id == number), FILE_TYPES["F32"])
    float_type = FileType.named(wanted)
    if float_type.name not in _FLOATS:
        raise UsageError(f"{float_type} is not a float type", hint=f"choose {', '.join(_FLOATS)}, or use quantize_gguf")
    return float_type


def _beside(gguf: GgufFile, ending: str) -> Path:
    """A path next to the file, with another type at the end of its name."""
    path = gguf.paths[0]
    part = PartName.read(path.name)
    stem = part.stem if part else path.name.removesuffix(".gguf")
    name, separator, last = stem.rpartition("-")
    is_type = separator and last.upper() in FILE_TYPES
    return path.with_name(f"{file_name(name if is_type else stem) or 'model'}-{ending}")
