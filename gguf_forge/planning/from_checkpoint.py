"""The main job: a checkpoint folder becomes a GGUF file."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.engine.batches import RowSource, Shard
from gguf_forge.engine.forge import default_threads
from gguf_forge.errors import OutputError, UnsupportedError, UsageError
from gguf_forge.general import fill_template, output_name
from gguf_forge.gguf_file.values import Metadata, u32
from gguf_forge.kernels.binding import backend_lanes, default_backend
from gguf_forge.planning.file_plan import (
    BaseFile,
    FilePlan,
    Observer,
    TensorChoice,
    WrittenFile,
    check_files,
    said_and_checked,
    write_files,
)
from gguf_forge.planning.model_plan import ModelPlan, plan_model
from gguf_forge.planning.splits import Split, split_as_converter, split_as_gguf_split, whole_file
from gguf_forge.recipe import FILE_TYPES, FileType, Options, file_type
from gguf_forge.storage.paths import is_folder
from gguf_forge.storage.profile import PLAN, Profile, measured, phase
from gguf_forge.types.tensor_type import F16, F32, TensorType

log = logging.getLogger(__name__)

DEFAULT_TYPE = "Q4_K_M"
# The blocks that checkpoints hold -> the file type of a file that keeps them.
_OF_BLOCKS = {"MXFP4": "MXFP4_MOE", "NVFP4": "NVFP4"}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The files that are to be made of a checkpoint, whatever runs it: what `convert` and `plan` are told, as there."""

    out: str | PathLike[str] | None = None
    types: str | Sequence[str] | None = None
    options: Options | None = None
    model_name: str | None = None
    metadata: str | PathLike[str] | None = None
    pre_tokenizer: str | None = None
    vocab_only: bool = False
    split: Split | None = None
    strict: bool = False


def plan_file(plan: ModelPlan, options: Options, out: Path | None = None, split: Split | None = None) -> FilePlan:
    """Chooses every type, size and offset of a file.

    Args:
        plan: The model.
        options: File type and what deviates from its mix.
        out: A file, a folder, a name with `{ftype}` in it, or None for the usual name in the current folder.
        split: Whether and how the file is split.

    Raises:
        UsageError: an option that the file type has no use for, or a type that needs an importance matrix.
    """
    kind, metadata, chosen, warnings = choose(plan, options)
    path = _path(plan, kind, out)
    shards = _shards(path, metadata, chosen, options.file_type, split or Split())
    if split and shards[0].path == path:
        warnings = (*warnings, f"{path.name} is not split: one part holds it all")
    return FilePlan(
        type=kind,
        shards=shards,
        fallbacks=tuple(tensor.info.name for tensor in chosen if tensor.is_fallback),
        warnings=warnings,
        source_bytes=plan.nbytes,
        inputs=(*plan.inputs, *options.inputs),
    )


def _shards(
    path: Path, metadata: Metadata, chosen: Sequence[TensorChoice], kind: FileType, split: Split
) -> tuple[Shard, ...]:
    if not split:
        return whole_file(path, metadata, chosen, vocab_only=not chosen)
    return (split_as_converter if kind.is_float else split_as_gguf_split)(path, metadata, chosen, split)


_FileChoice = tuple[FileType, Metadata, Sequence[TensorChoice], tuple[str, ...]]


def choose(plan: ModelPlan, options: Options) -> _FileChoice:
    """The file type with `auto` resolved, the keys, the tensors and the warnings of a file; see `plan_file`."""
    return (_float_file if options.file_type.is_float else _quantized_file)(plan, options)


def base_file(plan: ModelPlan) -> BaseFile:
    """The file that llama-quantize would be given: the converter's, of the checkpoint's own type."""
    base = plan.native_type or F32
    expressions = {tensor.name: tensor.expr for tensor in plan.tensors}
    return BaseFile(plan.base_infos(base), expressions, _with_file_type(plan, base))


def _float_file(plan: ModelPlan, options: Options) -> _FileChoice:
    """The file of the reference's converter: its order, and one float type for all matrices."""
    if options.in_use:
        raise UsageError(
            f"{', '.join(options.in_use)}: no use for a file of type {options.file_type}",
            hint="leave it out, or choose a quantized type",
        )
    base = options.file_type.default_type or plan.native_type or F16
    chosen = [
        TensorChoice(info, RowSource(tensor.expr, info.type), info.name)
        for tensor, info in zip(plan.tensors, plan.base_infos(base), strict=True)
    ]
    return _base_file_type(plan, base), _with_file_type(plan, base), chosen, ()


def _quantized_file(plan: ModelPlan, options: Options) -> _FileChoice:
    """The file of llama-quantize made from the converter's file of the checkpoint's own type."""
    if plan.packed_type is not None:
        raise UnsupportedError(
            f"the checkpoint is quantized to {plan.packed_type} already, and is not quantized again to "
            f"{options.file_type}",
            hint=f"use --type auto: what is in {plan.packed_type} stays as it is",
        )
    return options.file_type, *base_file(plan).quantized(options)


def _base_file_type(plan: ModelPlan, base: TensorType) -> FileType:
    """A checkpoint that is quantized itself keeps its file type, whatever the float type of the rest."""
    return FILE_TYPES[_OF_BLOCKS[plan.packed_type.name] if plan.packed_type else base.name]


def _with_file_type(plan: ModelPlan, base: TensorType) -> Metadata:
    return {**plan.metadata, "general.file_type": u32(_base_file_type(plan, base).id or 0)}


def _path(plan: ModelPlan, kind: FileType, out: Path | None) -> Path:
    folder = out or Path()
    if not is_folder(folder):
        return folder.with_name(fill_template(folder.name, kind.name))
    return folder / output_name(plan.identity, kind.name, vocab_only=not plan.tensors)


def convert(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    types: str | Sequence[str] | None = None,
    options: Options | None = None,
    model_name: str | None = None,
    metadata: str | PathLike[str] | None = None,
    pre_tokenizer: str | None = None,
    vocab_only: bool = False,
    split: Split | None = None,
    strict: bool = False,
    threads: int | None = None,
    backend: str | None = None,
    overwrite: bool = False,
    max_memory: int | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    profile: Profile | None = None,
) -> tuple[WrittenFile, ...]:
    """Converts a Hugging Face folder to GGUF files, one for each of `types`.

    Args:
        source: The folder: config.json, tokenizer files, one or many .safetensors files.
        out: A file, a folder, a name with `{ftype}` in it, or None for the usual name in the current folder.
        types: llama.cpp file types, in any case. The default is Q4_K_M, and `auto` for a vocabulary alone or a
            checkpoint in MXFP4.
        options: What deviates from the types' mixes; its own file type is replaced by each of `types`.
        model_name: `general.name`, instead of what the folder and the model card say.
        metadata: A JSON file with `general.*` keys that outrank the model card.
        pre_tokenizer: The pre-tokenizer's name, for vocabularies whose hash is not known.
        vocab_only: Metadata and vocabulary, no tensors.
        split: Whether and how each file is split; None for one file. Float types are split as llama.cpp's converter
            does it, quantized types as llama-gguf-split.
        strict: Refuse to give a tensor another type than it should have where its rows do not fit that one.
        threads: Defaults to the processors this process may use.
        backend: Which kernels; the default is the fastest of this machine.
        overwrite: Replace existing files.
        max_memory: Bytes that the process may hold, everything counted; None for 1 GiB, or a little more than it holds
            already.
        resume: Go on from what a stopped run left, and if this one is stopped leave that. Files that are complete
            stay as they are, unless `overwrite` says otherwise.
        observer: Is told how it goes.
        profile: Is told where the time of each thread goes.

    Raises:
        ForgeError: what was wrong, where, and what to do; nothing is left under the final names.

    Example:
        >>> convert("Qwen3-0.6B", types=["Q4_K_M", "Q8_0"])  # doctest: +SKIP
    """
    wanted = Wanted(
        out=out,
        types=types,
        options=options,
        model_name=model_name,
        metadata=metadata,
        pre_tokenizer=pre_tokenizer,
        vocab_only=vocab_only,
        split=split,
        strict=strict,
    )
    with measured(profile, "main"), phase(PLAN), open_checkpoint(source, vocab_only) as checkpoint:
        files = plan_files(checkpoint, wanted)
        check_files(files, backend=backend, overwrite=overwrite, resume=resume)
        kernels = backend or default_backend()
        log.info("kernels: %s (%d lanes); threads: %d", kernels, backend_lanes(kernels), threads or default_threads())
        return write_files(
            files,
            threads=threads,
            backend=backend,
            overwrite=overwrite,
            max_memory=max_memory,
            resume=resume,
            observer=observer,
            profile=profile,
        )


def plan(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    types: str | Sequence[str] | None = None,
    options: Options | None = None,
    model_name: str | None = None,
    metadata: str | PathLike[str] | None = None,
    pre_tokenizer: str | None = None,
    vocab_only: bool = False,
    split: Split | None = None,
    strict: bool = False,
) -> tuple[FilePlan, ...]:
    """What `convert` would write, given the same: every tensor, type, size and offset. Reads no weight.

    Raises:
        ForgeError: what was wrong, where, and what to do.

    Example:
        >>> [file.layout.size for file in plan("Qwen3-0.6B", types="Q4_K_M")]  # doctest: +SKIP
    """
    wanted = Wanted(
        out=out,
        types=types,
        options=options,
        model_name=model_name,
        metadata=metadata,
        pre_tokenizer=pre_tokenizer,
        vocab_only=vocab_only,
        split=split,
        strict=strict,
    )
    with open_checkpoint(source, vocab_only) as checkpoint:
        return plan_files(checkpoint, wanted)


def open_checkpoint(source: str | PathLike[str], vocab_only: bool) -> Checkpoint:
    """A vocabulary alone is made of a folder without weights, too; weights only tell the type that `auto` means."""
    folder = Path(source)
    return Checkpoint.open(folder, weights=not vocab_only or any(folder.glob("*.safetensors")))


def plan_files(checkpoint: Checkpoint, wanted: Wanted) -> tuple[FilePlan, ...]:
    """What `convert` would write of an opened checkpoint; of use as long as that is open."""
    split, vocab_only, types = wanted.split, wanted.vocab_only, wanted.types
    if split and (vocab_only or split.keep):
        raise UsageError(
            "a vocabulary alone is not split" if vocab_only else "a checkpoint has no split to keep",
            hint="leave out the options of the split",
        )
    target = _target(wanted.out)
    model = plan_model(
        checkpoint,
        model_name=wanted.model_name,
        metadata_file=Path(wanted.metadata) if wanted.metadata is not None else None,
        pre_tokenizer=wanted.pre_tokenizer,
        vocab_only=vocab_only,
    )
    if types is None:
        types = "auto" if vocab_only or model.packed_type is not None else DEFAULT_TYPE
    kinds = list(dict.fromkeys(file_type(name) for name in ([types] if isinstance(types, str) else types)))
    name = model.metadata["general.architecture"].data
    log.info("%s: a %s model, %d tensors", checkpoint.folder, name, len(model.tensors))
    options = wanted.options or Options()
    files = (plan_file(model, replace(options, file_type=kind), target, split) for kind in kinds)
    return said_and_checked(files, strict=wanted.strict)


def _target(out: str | PathLike[str] | None) -> Path | None:
    if out is None:
        return None
    if os.fspath(out).endswith(os.sep) and not is_folder(Path(out)):
        raise OutputError("the folder does not exist", file=out, hint="create it first")
    return Path(out)
