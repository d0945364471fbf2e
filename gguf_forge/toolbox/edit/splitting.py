"""llama-gguf-split's jobs: a GGUF file becomes several, and several become one.

Source: llama.cpp's tools/gguf-split/gguf-split.cpp, and `gguf_set_kv` of ggml's gguf.cpp.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

from gguf_forge.errors import InputError, OutputError, RefusedError, UsageError
from gguf_forge.gguf_file.opened import GgufFile, open_gguf, open_parts
from gguf_forge.gguf_file.packed_items import as_c_strings
from gguf_forge.gguf_file.split import SPLIT_COUNT, SPLIT_KEYS
from gguf_forge.gguf_file.values import Metadata, Value, ValueType
from gguf_forge.planning.file_plan import FilePlan, WrittenFile, make_files
from gguf_forge.planning.splits import Split, split_as_gguf_split, whole_file
from gguf_forge.run_settings import Observer, RunSettings
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.held_folder import held
from gguf_forge.storage.local.source_file import identity_of
from gguf_forge.storage.source import Source
from gguf_forge.toolbox.edit.copying import as_they_are, bounds_of, check_one_byte_order, copying_plan, tensors_to_copy


def split_gguf(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    max_size: int | None = None,
    max_tensors: int | None = None,
    no_tensor_first: bool = False,
    partial: bool = False,
    threads: int | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> WrittenFile:
    """Splits a GGUF file into the files that llama-gguf-split makes of it, byte for byte.

    Args:
        source: The file; of a split one the first, and all its files are split anew.
        out: Path and beginning of the names: `PREFIX-00001-of-00003.gguf` and so on. A missing folder is made.
        max_size: Bytes of tensors in a part; a tensor that is larger has a part of its own.
        max_tensors: Tensors in a part. Without any bound it is 128.
        no_tensor_first: The first part holds the metadata alone.
        partial: Take what is there of a split with missing parts, or of a file that is cut short.
        threads, overwrite, observer: How it is run; see `RunSettings`.

    Returns:
        The parts, in `file.shards`, and the seconds it took.

    Raises:
        UsageError: both bounds, or one that is not positive; more parts than a file can count.
        ForgeError: what was wrong, where, and what to do; nothing is left under the names of the parts.

    Example:
        >>> split_gguf("Qwen3-0.6B-BF16.gguf", "parts/Qwen3-0.6B", max_size=500_000_000)  # doctest: +SKIP
    """
    split = Split(max_size=max_size, max_tensors=max_tensors, no_tensor_first=no_tensor_first)
    with open_gguf(source, lenient=True) as gguf:
        run = RunSettings(threads=threads, overwrite=overwrite, observer=observer)
        return make_split(plan_split(gguf, out, split, partial=partial), run)


def make_split(file: FilePlan, run: RunSettings) -> WrittenFile:
    """Makes the parts of a plan, and their folder if it is missing."""
    return make_files([file], run)[0]


def plan_split(gguf: GgufFile, prefix: str | PathLike[str], split: Split, *, partial: bool = False) -> FilePlan:
    """What `split_gguf` would write of a file that was opened leniently, with the same errors; valid while the file is
    open."""
    if split.max_size is not None and split.max_tensors is not None:
        raise UsageError("both a size and a number of tensors bound the parts", hint="leave one of them out")
    if not Path(prefix).name or os.fspath(prefix).endswith(os.sep):
        raise UsageError(f"the prefix {os.fspath(prefix)!r} has no beginning of a name", hint="for example parts/model")
    check_one_byte_order(gguf)
    shards = split_as_gguf_split(
        Path(f"{os.fspath(prefix)}.gguf"),
        _without(gguf.typed_metadata, *SPLIT_KEYS),
        as_they_are(tensors_to_copy(gguf, partial=partial)),
        split,
        byte_order=gguf.byte_order,
        bounds=bounds_of(gguf),
    )
    return copying_plan(shards, gguf)


def merge_gguf(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    delete_splits: bool = False,
    partial: bool = False,
    threads: int | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> WrittenFile:
    """Makes one GGUF file of the parts of a split, byte for byte the one that llama-gguf-split makes.

    Args:
        source: The first part; the others are in the same folder. Also one file in which `cat` has joined all parts,
            or a plain piece of a file (`model.gguf.part1of2`).
        out: The output file.
        delete_splits: Delete the parts when the file is complete.
        partial: Take what is there of a split with missing parts.
        threads, overwrite, observer: How it is run; see `RunSettings`.

    Raises:
        InputError: this is not a part of a split; a part is missing, damaged, or of another split.
        OutputError: the file cannot be written, or (with the file complete) a part cannot be deleted.
        ForgeError: what was wrong, where, and what to do; nothing is left under the name.

    Example:
        >>> merge_gguf("Qwen3-0.6B-BF16-00001-of-00003.gguf", "Qwen3-0.6B-BF16.gguf")  # doctest: +SKIP
    """
    run = RunSettings(threads=threads, overwrite=overwrite, observer=observer)
    return make_merged(source, out, run, delete_splits=delete_splits, partial=partial)


def make_merged(
    source: str | PathLike[str],
    out: str | PathLike[str],
    run: RunSettings,
    *,
    delete_splits: bool = False,
    partial: bool = False,
) -> WrittenFile:
    """Makes one file of a split, as `merge_gguf` does."""
    if delete_splits and partial:
        hint = "leave one of the two out"
        raise RefusedError("parts are not deleted for a file that may lack some of them", hint=hint)
    with ExitStack() as opened:
        gguf = opened.enter_context(open_parts(source))
        folder = opened.enter_context(held(gguf.pieces[0].parent)) if delete_splits else None
        result = make_files([plan_merge(gguf, out, partial=partial)], run)[0]
        if folder is not None:
            for part in gguf.on_disk:
                _delete(part, folder / part.path.name)
    return result


def plan_merge(gguf: GgufFile, out: str | PathLike[str], *, partial: bool = False) -> FilePlan:
    """What `merge_gguf` would write of a split that `open_parts` opened. The plan is valid while the split is open."""
    tensors = tensors_to_copy(gguf, partial=partial)
    chosen = as_they_are(tensors)
    check_one_byte_order(gguf)
    if gguf.pieces != gguf.paths and len(gguf.paths) == 1:  # plain pieces of a whole file
        whole = gguf.typed_metadata
        shards = whole_file(Path(out), whole, chosen, byte_order=gguf.byte_order, bounds=bounds_of(gguf))
        return copying_plan(shards, gguf)
    count = gguf.typed_metadata.get(SPLIT_COUNT)
    if count is None or count.data == 0:
        raise InputError(
            f"{SPLIT_COUNT} is {'missing' if count is None else 0}: this is not a part of a split",
            file=gguf.paths[0],
            hint="the file is whole already" if len(gguf.tensors) else None,
        )
    # the merged file must not be taken for a part of a split
    metadata = {**_without(gguf.typed_metadata, SPLIT_COUNT), SPLIT_COUNT: Value(ValueType.UINT16, 0)}
    shards = whole_file(Path(out), metadata, chosen, byte_order=gguf.byte_order, bounds=bounds_of(gguf))
    return copying_plan(shards, gguf)


def _without(metadata: Metadata, *keys: str) -> Metadata:
    return {key: as_c_strings(value) for key, value in metadata.items() if key not in keys}


def _delete(part: Source, name: Name) -> None:
    """Deletes a part that was merged, unless its name is meanwhile that of another file."""
    problem = "the merged file is complete, but this part cannot be deleted"
    try:
        if identity_of(disk.status_at(name)) != part.identity:
            hint = "its name leads to another file now"
            raise OutputError(problem, file=part.path, hint=hint)
        disk.unlink(name)
    except OSError as error:
        raise OutputError(f"{problem}: {error.strerror}", file=part.path) from error
