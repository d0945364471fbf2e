"""The main job: a checkpoint folder becomes a GGUF file."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.errors import OutputError, UnsupportedError, UsageError
from gguf_forge.forge import RowSource, default_threads, forge
from gguf_forge.general import fill_template, output_name
from gguf_forge.gguf_file.layout import Layout, lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, u32
from gguf_forge.kernels import backend_lanes, default_backend, quantizable_types
from gguf_forge.model_plan import ModelPlan, plan_model
from gguf_forge.publish import check_output, check_room
from gguf_forge.recipe import FILE_TYPES, FileType, Options, file_type, importance_of, make_recipe
from gguf_forge.tensor_types import F16, F32, TensorType

log = logging.getLogger(__name__)

DEFAULT_TYPE = "Q4_K_M"


@dataclass(frozen=True)
class FilePlan:
    """One file, decided to the last byte but the weights.

    Attributes:
        type: Its file type, with `auto` resolved.
        path: Where it goes.
        layout: Header, tensors and offsets.
        sources: Where each tensor's values come from, in the layout's order.
        fallbacks: Tensors whose rows do not divide into the blocks of the type they should have had.
        warnings: What the user asked for and will not happen.
        source_bytes: Bytes of the tensors as the checkpoint holds them.
        inputs: Every file that is read.
    """

    type: FileType
    path: Path
    layout: Layout
    sources: tuple[RowSource, ...]
    fallbacks: tuple[str, ...]
    warnings: tuple[str, ...]
    source_bytes: int
    inputs: tuple[Path, ...]

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        return tuple(placed.info for placed in self.layout.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits of tensor data for each weight; 0 for a vocabulary alone."""
        weights = sum(info.n_elements for info in self.tensors)
        return 8 * sum(info.nbytes for info in self.tensors) / weights if weights else 0.0

    @property
    def types(self) -> Mapping[str, int]:
        """How many tensors have each type, the most frequent first."""
        return dict(Counter(info.type.name for info in self.tensors).most_common())


@dataclass(frozen=True)
class Result:
    """A file that was written, and the seconds it took."""

    file: FilePlan
    seconds: float

    @property
    def path(self) -> Path:
        return self.file.path


class Observer:
    """Is told how a conversion goes. The methods do nothing; a progress bar overrides them."""

    def begin(self, file: FilePlan) -> None:
        """A file is about to be written."""

    def advance(self, n_bytes: int) -> None:
        """So many bytes of it have been."""


def plan_file(plan: ModelPlan, options: Options, out: Path | None = None) -> FilePlan:
    """Chooses every type, size and offset of a file.

    Args:
        plan: The model.
        options: File type and what deviates from its mix.
        out: A file, a folder, a name with `{ftype}` in it, or None for the usual name in the current folder.

    Raises:
        UsageError: an option that the file type has no use for, or a type that needs an importance matrix.
    """
    make = _float_file if options.file_type.is_float else _quantized_file
    kind, metadata, chosen, warnings = make(plan, options)
    layout = lay_out(metadata, [tensor.info for tensor in chosen], vocab_only=not chosen)
    return FilePlan(
        type=kind,
        path=_path(plan, kind, out),
        layout=layout,
        sources=tuple(tensor.source for tensor in chosen),
        fallbacks=tuple(tensor.info.name for tensor in chosen if tensor.is_fallback),
        warnings=warnings,
        source_bytes=plan.nbytes,
        inputs=plan.inputs,
    )


@dataclass(frozen=True)
class _Chosen:
    """A tensor of the file, where its values come from, and whether its type is a fallback."""

    info: TensorInfo
    source: RowSource
    is_fallback: bool = False


_FileChoice = tuple[FileType, Metadata, Sequence[_Chosen], tuple[str, ...]]


def _float_file(plan: ModelPlan, options: Options) -> _FileChoice:
    """The file of the reference's converter: its order, and one float type for all matrices."""
    if options.in_use:
        raise UsageError(
            f"{', '.join(options.in_use)}: no use for a file of type {options.file_type}",
            hint="leave it out, or choose a quantized type",
        )
    base = options.file_type.default_type or plan.native_type or F16
    chosen = [
        _Chosen(info, RowSource(tensor.expr, info.type))
        for tensor, info in zip(plan.tensors, plan.base_infos(base), strict=True)
    ]
    return _base_file_type(plan, base), _with_file_type(plan, base), chosen, ()


def _quantized_file(plan: ModelPlan, options: Options) -> _FileChoice:
    """The file of llama-quantize made from the converter's file of the checkpoint's own type."""
    if plan.is_packed:
        raise UnsupportedError(
            f"the checkpoint is quantized to MXFP4 already, and is not quantized again to {options.file_type}",
            hint="use --type auto: what is in MXFP4 stays as it is",
        )
    base = plan.native_type or F32
    infos, metadata = plan.base_infos(base), _with_file_type(plan, base)
    recipe = make_recipe(infos, metadata, options)
    expressions = {tensor.name: tensor.expr for tensor in plan.tensors}
    chosen = [
        _Chosen(
            assignment.output,
            RowSource(
                expressions[assignment.info.name], assignment.info.type, importance_of(assignment, options.imatrix)
            ),
            assignment.fallback,
        )
        for assignment in recipe.assignments
    ]
    return options.file_type, recipe.metadata, chosen, recipe.warnings


def _base_file_type(plan: ModelPlan, base: TensorType) -> FileType:
    """A checkpoint that is quantized itself keeps its file type, whatever the float type of the rest."""
    return FILE_TYPES["MXFP4_MOE" if plan.is_packed else base.name]


def _with_file_type(plan: ModelPlan, base: TensorType) -> Metadata:
    return {**plan.metadata, "general.file_type": u32(_base_file_type(plan, base).id or 0)}


def _path(plan: ModelPlan, kind: FileType, out: Path | None) -> Path:
    folder = out or Path()
    if not folder.is_dir():
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
    threads: int | None = None,
    backend: str | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> tuple[Result, ...]:
    """Converts a Hugging Face folder to GGUF files, one for each of `types`.

    Args:
        source: The folder: config.json, tokenizer files, one or many .safetensors files.
        out: A file, a folder, a name with `{ftype}` in it, or None for the usual name in the current folder.
        types: llama.cpp file types, in any case. The default is Q4_K_M; for a vocabulary alone it is `auto`.
        options: What deviates from the types' mixes; its own file type is replaced by each of `types`.
        model_name: `general.name`, instead of what the folder and the model card say.
        metadata: A JSON file with `general.*` keys that outrank the model card.
        pre_tokenizer: The pre-tokenizer's name, for vocabularies whose hash is not known.
        vocab_only: Metadata and vocabulary, no tensors.
        threads: Defaults to the processors this process may use.
        backend: Which kernels; the default is the fastest of this machine.
        overwrite: Replace existing files.
        observer: Is told how it goes.

    Raises:
        ForgeError: what was wrong, where, and what to do; nothing is left under the final names.

    Example:
        >>> convert("Qwen3-0.6B", types=["Q4_K_M", "Q8_0"])  # doctest: +SKIP
    """
    files = plan_files(
        source,
        out,
        types=types,
        options=options,
        model_name=model_name,
        metadata=metadata,
        pre_tokenizer=pre_tokenizer,
        vocab_only=vocab_only,
    )
    check_files(files, backend=backend, overwrite=overwrite)
    kernels = backend or default_backend()
    log.info("kernels: %s (%d lanes); threads: %d", kernels, backend_lanes(kernels), threads or default_threads())
    watcher = observer or Observer()
    return tuple(_write(file, threads, backend, overwrite, watcher) for file in files)


def plan_files(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    types: str | Sequence[str] | None = None,
    options: Options | None = None,
    model_name: str | None = None,
    metadata: str | PathLike[str] | None = None,
    pre_tokenizer: str | None = None,
    vocab_only: bool = False,
) -> tuple[FilePlan, ...]:
    """What `convert` would write: every tensor, type, size and offset. Reads no weight; arguments as there.

    Example:
        >>> [file.layout.size for file in plan_files("Qwen3-0.6B", types="Q4_K_M")]  # doctest: +SKIP
    """
    if types is None:
        types = "auto" if vocab_only else DEFAULT_TYPE
    kinds = list(dict.fromkeys(file_type(name) for name in ([types] if isinstance(types, str) else types)))
    target = _target(out)
    plan = plan_model(
        Checkpoint.open(Path(source)),
        model_name=model_name,
        metadata_file=Path(metadata) if metadata is not None else None,
        pre_tokenizer=pre_tokenizer,
        vocab_only=vocab_only,
    )
    log.info("%s: a %s model, %d tensors", source, plan.metadata["general.architecture"].data, len(plan.tensors))
    files = tuple(plan_file(plan, replace(options or Options(), file_type=kind), target) for kind in kinds)
    for warning in dict.fromkeys(warning for file in files for warning in file.warnings):
        log.warning("%s", warning)
    paths = [file.path for file in files]
    if len(set(paths)) < len(paths):
        raise UsageError(
            f"{len(paths)} files would all be {paths[0]}",
            hint="name a folder, or put {ftype} into the name",
        )
    return files


def _target(out: str | PathLike[str] | None) -> Path | None:
    if out is None:
        return None
    if os.fspath(out).endswith(os.sep) and not Path(out).is_dir():
        raise OutputError("the folder does not exist", file=out, hint="create it first")
    return Path(out)


def check_files(files: Iterable[FilePlan], *, backend: str | None = None, overwrite: bool = False) -> None:
    """Says before any work what would stop it.

    Args:
        files: Planned files, all in one folder.
        backend: Which kernels; the default is the fastest of this machine.
        overwrite: Existing files may be replaced.

    Raises:
        UnsupportedError: no kernel makes a type that a file needs.
        UsageError: this machine cannot run the backend.
        RefusedError: a file is one of the inputs, or exists and may not be replaced.
        OutputError: a file cannot be written there, or the disk has too little room for all of them.
    """
    every = tuple(files)
    backend_lanes(backend or default_backend())
    for file in every:
        _check_types(file)
        check_output(file.path, file.layout.size, file.inputs, overwrite=overwrite)
    check_room(every[0].path.parent, sum(file.layout.size for file in every))


def _check_types(file: FilePlan) -> None:
    made = {
        placed.info.type
        for placed, source in zip(file.layout.tensors, file.sources, strict=True)
        if source.expr.dtype.is_float
    }
    missing = sorted(kind.name for kind in made - quantizable_types())
    if missing:
        raise UnsupportedError(
            f"as {file.type}, this model has {', '.join(missing)} tensors, which this version cannot make yet",
            hint="choose another type",
        )


def _write(file: FilePlan, threads: int | None, backend: str | None, overwrite: bool, observer: Observer) -> Result:
    begun = time.perf_counter()
    observer.begin(file)
    forge(
        file.layout,
        file.sources,
        file.path,
        threads=threads,
        backend=backend,
        overwrite=overwrite,
        progress=observer.advance,
    )
    return Result(file, time.perf_counter() - begun)
