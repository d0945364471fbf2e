"""llama-quantize's job: a GGUF file becomes GGUF files of other types. A GGUF file is a source like a checkpoint is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from gguf_forge.engine.batches import Shard
from gguf_forge.errors import UsageError
from gguf_forge.general import fill_template
from gguf_forge.gguf_file.expressions import expression_of
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.values import Metadata
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
from gguf_forge.planning.splits import Split, split_as_gguf_split, split_as_source, whole_file
from gguf_forge.recipe import FileType, Options, file_type
from gguf_forge.recipe.file_types import ALIASES
from gguf_forge.storage.paths import is_folder
from gguf_forge.storage.profile import PLAN, Profile, measured, phase

log = logging.getLogger(__name__)


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
    max_memory: int | None = None,
    resume: bool = False,
    buffer: int | None = None,
    observer: Observer | None = None,
    profile: Profile | None = None,
) -> tuple[WrittenFile, ...]:
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
        max_memory: Bytes that the process may hold, everything counted; None for 1 GiB, or a little more than it holds
            already.
        resume: Go on from what a stopped run left, and if this one is stopped leave that. Files that are complete
            stay as they are, unless `overwrite` says otherwise.
        buffer: Bytes that the rows in work may take.
        observer: Is told how it goes.
        profile: Is told where the time of each thread goes.

    Raises:
        ForgeError: what was wrong, where, and what to do; nothing is left under the final names.

    Example:
        >>> quantize_gguf("Qwen3-0.6B-BF16.gguf", types="Q4_K_M")  # doctest: +SKIP
    """
    with measured(profile, "main"), phase(PLAN), open_gguf(source) as gguf:
        files = plan_quantized(
            gguf, out, types=types, options=options, output_dir=output_dir, split=split, strict=strict
        )
        check_files(files, backend=backend, overwrite=overwrite, resume=resume)
        return write_files(
            files,
            threads=threads,
            backend=backend,
            overwrite=overwrite,
            max_memory=max_memory,
            resume=resume,
            buffer=buffer,
            observer=observer,
            profile=profile,
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
        {tensor.name: expression_of(tensor) for tensor in gguf.tensors},
        gguf.typed_metadata,
    )
    kinds = {file_type(name): name for name in ([types] if isinstance(types, str) else types)}
    log.info("%s: %d tensors in %d files", gguf.paths[0], len(gguf.tensors), len(gguf.paths))
    given = replace(options or Options(), keep_order=how.keep)
    files = (
        _plan(gguf, base, _path(target, kind, name), replace(given, file_type=kind), how, only_planned=only_planned)
        for kind, name in kinds.items()
    )
    return said_and_checked(files, strict=strict)


def _path(target: Path, kind: FileType, name: str | FileType) -> Path:
    if is_folder(target):
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
        shards=_shards(path, metadata, chosen, gguf, split),
        fallbacks=tuple(tensor.info.name for tensor in chosen if tensor.is_fallback),
        warnings=warnings,
        source_bytes=sum(tensor.nbytes for tensor in gguf.tensors),
        inputs=(*gguf.paths, *options.inputs),
    )


def _shards(
    path: Path, metadata: Metadata, chosen: Sequence[TensorChoice], gguf: GgufFile, split: Split
) -> tuple[Shard, ...]:
    if split.keep:
        part_of = {tensor.name: number for number, shard in enumerate(gguf.shards) for tensor in shard}
        return split_as_source(path, metadata, chosen, part_of)
    return split_as_gguf_split(path, metadata, chosen, split) if split else whole_file(path, metadata, chosen)
