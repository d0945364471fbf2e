"""llama-quantize's job: a GGUF file becomes GGUF files of other types. A GGUF file is a source like a checkpoint is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from gguf_forge.errors import ForgeError, UsageError
from gguf_forge.expr import BigEndian, Stored, TensorExpr
from gguf_forge.file_plan import (
    BaseFile,
    Chosen,
    FilePlan,
    Observer,
    Result,
    check_files,
    refuse_equal_paths,
    refuse_fallbacks,
    write_files,
)
from gguf_forge.forge import Shard
from gguf_forge.general import fill_template
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.reader import GgufTensor
from gguf_forge.gguf_file.split import SPLIT_COUNT, part_keys, part_path, parts_within
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.recipe import FileType, Options, file_type
from gguf_forge.recipe.file_types import ALIASES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """How the output is split: into the parts of the input, or into parts of a bounded size. No bound: not at all.

    Args:
        keep: The parts of the input (`--keep-split`).
        max_size: Bytes of tensors in a part.
        max_tensors: Tensors in a part.

    Raises:
        UsageError: bounds that are not positive, or together with `keep`.
    """

    keep: bool = False
    max_size: int | None = None
    max_tensors: int | None = None

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.max_size, self.max_tensors) if bound is not None]
        if any(bound <= 0 for bound in bounds):
            raise UsageError("a part of a split must have room for something", hint="give a positive size or number")
        if bounds and self.keep:
            raise UsageError(
                "--keep-split is a split already", hint="leave out --split-max-size and --split-max-tensors"
            )

    def __bool__(self) -> bool:
        return self != Split()


def quantize_gguf(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    types: str | Sequence[str],
    options: Options | None = None,
    output_dir: str | PathLike[str] | None = None,
    split: Split | None = None,
    strict: bool = False,
    threads: int | None = None,
    backend: str | None = None,
    overwrite: bool = False,
    buffer: int | None = None,
    observer: Observer | None = None,
) -> tuple[Result, ...]:
    """Quantizes a GGUF file, one output for each of `types`: the file that llama-quantize makes, byte for byte.

    Args:
        source: The file, or the first one of a split.
        out: A file, a folder, or a name with `{ftype}` in it; None for ggml-model-TYPE.gguf beside the source.
        types: llama.cpp file types, in any case, or their numbers; COPY keeps all types.
        options: What deviates from the types' mixes; its own file type is replaced by each of `types`.
        output_dir: The folder of ggml-model-TYPE.gguf, instead of `out`.
        split: Whether and how the output is split; None for one file.
        strict: Refuse to give a tensor another type than it should have where its rows do not fit that one.
        threads: Defaults to the processors this process may use.
        backend: Which kernels; the default is the fastest of this machine.
        overwrite: Replace existing files.
        buffer: Bytes that the rows in work may take.
        observer: Is told how it goes.

    Raises:
        ForgeError: what was wrong, where, and what to do; nothing is left under the final names.

    Example:
        >>> quantize_gguf("Qwen3-0.6B-BF16.gguf", types="Q4_K_M")  # doctest: +SKIP
    """
    with open_gguf(source) as gguf:
        files = plan_quantized(
            gguf, out, types=types, options=options, output_dir=output_dir, split=split, strict=strict
        )
        check_files(files, backend=backend, overwrite=overwrite)
        return write_files(
            files, threads=threads, backend=backend, overwrite=overwrite, buffer=buffer, observer=observer
        )


def plan_quantized(
    gguf: GgufFile,
    out: str | PathLike[str] | None = None,
    *,
    types: str | Sequence[str],
    options: Options | None = None,
    output_dir: str | PathLike[str] | None = None,
    split: Split | None = None,
    strict: bool = False,
    only_planned: bool = False,
) -> tuple[FilePlan, ...]:
    """What `quantize_gguf` would write: every tensor, type, size and offset. Reads no weight; arguments as there.

    The plans are of use as long as `gguf` is open. With `only_planned`, an importance matrix that is missing and
    sources that are quantized already are warnings, as with llama-quantize's --dry-run.
    """
    if out is not None and output_dir is not None:
        raise UsageError("both an output and --output-dir are given", hint="leave one of them out")
    how = split or Split()
    named = output_dir if out is None else out
    target = gguf.paths[0].parent if named is None else Path(named)
    base = BaseFile(
        [tensor.info for tensor in gguf.tensors],
        {tensor.name: _expression(tensor) for tensor in gguf.tensors},
        gguf.typed_metadata,
    )
    kinds = {file_type(name): name for name in ([types] if isinstance(types, str) else types)}
    log.info("%s: %d tensors in %d files", gguf.paths[0], len(gguf.tensors), len(gguf.paths))
    given = replace(options or Options(), keep_order=how.keep)
    files = tuple(
        _plan(gguf, base, _path(target, kind, name), replace(given, file_type=kind), how, only_planned=only_planned)
        for kind, name in kinds.items()
    )
    for warning in dict.fromkeys(warning for file in files for warning in file.warnings):
        log.warning("%s", warning)
    refuse_equal_paths(files)
    if strict:
        refuse_fallbacks(files)
    return files


def _expression(tensor: GgufTensor) -> TensorExpr:
    stored = Stored(tensor.name, tensor.source, tensor.offset, tensor.shape[::-1], tensor.type)
    if tensor.byte_order == "<":
        return stored
    try:
        return BigEndian(stored)
    except ForgeError as error:
        raise type(error)(error.problem, file=tensor.source.path, tensor=tensor.name, hint=error.hint) from None


def _path(target: Path, kind: FileType, name: str | FileType) -> Path:
    if target.is_dir():
        return target / f"ggml-model-{_reference_name(kind, name)}.gguf"
    return target.with_name(fill_template(target.name, kind.name))


def _reference_name(kind: FileType, name: str | FileType) -> str:
    """What llama-quantize calls the type in a file name: aliases stay, and stand for numbers."""
    given = str(name).strip().upper()
    if given == kind.name.upper():
        return kind.name
    return next((alias for alias, meant in ALIASES.items() if meant == kind.name), kind.name)


def _plan(
    gguf: GgufFile, base: BaseFile, path: Path, options: Options, split: Split, *, only_planned: bool
) -> FilePlan:
    metadata, chosen, warnings = base.quantized(options, only_planned=only_planned)
    return FilePlan(
        type=options.file_type,
        shards=_split(path, metadata, chosen, gguf, split) if split else (_shard(path, metadata, chosen),),
        fallbacks=tuple(tensor.info.name for tensor in chosen if tensor.is_fallback),
        warnings=warnings,
        source_bytes=sum(tensor.nbytes for tensor in gguf.tensors),
        inputs=(*gguf.paths, *options.inputs),
    )


def _split(path: Path, metadata: Metadata, chosen: Sequence[Chosen], gguf: GgufFile, split: Split) -> tuple[Shard, ...]:
    """The parts: of --keep-split as llama-quantize writes them, of the others as llama-gguf-split would."""
    if split.keep:
        part = {tensor.name: number for number, shard in enumerate(gguf.shards) for tensor in shard}
        parts = [part[tensor.origin] for tensor in chosen]
    else:
        parts = parts_within((tensor.info for tensor in chosen), split.max_size, split.max_tensors)
    total = max(parts, default=0) + 1
    shards = []
    for number in range(total):
        keys = part_keys(number, total, len(chosen))
        if not split.keep:
            keys[SPLIT_COUNT] = keys.pop(SPLIT_COUNT)  # llama-gguf-split sets it last
        elif total == 1:
            keys = {}
        members = [tensor for tensor, part_of in zip(chosen, parts, strict=True) if part_of == number]
        shards.append(_shard(part_path(path, number, total), {**(metadata if number == 0 else {}), **keys}, members))
    return tuple(shards)


def _shard(path: Path, metadata: Metadata, chosen: Sequence[Chosen]) -> Shard:
    layout = lay_out(metadata, [tensor.info for tensor in chosen])
    return Shard(path, layout, tuple(tensor.source for tensor in chosen))
