"""Output files that appear under their names when they are complete, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from gguf_forge.errors import OutputError, RefusedError
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.output import (
    ENDINGS,
    MORE_ROOM,
    LocalSink,
    beside,
    output_errors,
    refuse_existing,
)
from gguf_forge.storage.paths import is_folder, is_same
from gguf_forge.storage.profile import SYNC, phase
from gguf_forge.storage.sink import Output
from gguf_forge.wording import log_of

log = log_of(__name__)

_LONGEST_NAME = 255


def check_output(path: Path, size: int, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Checks before any work whether the output can be written.

    Args:
        path: The path of the output.
        size: Its size in bytes.
        inputs: Files that it must not replace.
        overwrite: Whether an existing file may be replaced.

    Raises:
        RefusedError: the path is an input (by name, link or hard link), or exists and may not be replaced.
        OutputError: the path is a folder, its folder is missing or not writable, or the disk has too little room.
    """
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise OutputError(
            f"the file's name is longer than {_LONGEST_NAME} bytes", file=path, hint="choose a shorter name"
        )
    if is_folder(path):
        raise OutputError("is a folder", file=path, hint="name a file in it")
    if not is_folder(path.parent):
        raise OutputError("the folder does not exist", file=path.parent, hint="create it first")
    if path.exists() and not path.is_file():
        raise OutputError("is not a regular file", file=path, hint="choose another name")
    if path.exists() and any(is_same(path, source) for source in inputs):
        raise RefusedError("the output is one of the inputs", file=path, hint="choose another name")
    if not overwrite:
        refuse_existing(path, "already exists")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError("the folder is not writable", file=path.parent)
    check_room(path.parent, [(path, size)])


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes a folder for outputs, and removes it again if it is still empty when the block fails.

    Raises:
        OutputError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not is_folder(path)]
    for path in reversed(missing):
        with output_errors(path):
            disk.make_folder(path)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it is not empty
            for path in missing:
                disk.remove_folder(path)
        raise


def check_room(folder: Path, outputs: Sequence[tuple[Path, int]]) -> None:
    """Raises OutputError if the disk has too little room for files of these sizes, all in `folder`.

    Unfinished files that killed runs left under the same names count as free room, because they are used again.
    """
    size = sum(size for _, size in outputs)
    free = shutil.disk_usage(folder).free + sum(_left_behind(path) for path, _ in outputs)
    if free < size:
        raise OutputError(f"this needs {size:,} bytes and the disk has {free:,} free", file=folder, hint=MORE_ROOM)


def tidy(path: Path) -> None:
    """Removes temporary files that a killed run left next to a complete file, unless another run uses them now."""
    if any(os.path.lexists(beside(path, ending)) for ending in ENDINGS):
        file = LocalSink(Output(path, 0))
        with suppress(OutputError, RefusedError):
            file.take()
        file.end(keep=False)


def _left_behind(path: Path) -> int:
    """The room on the disk that the unfinished file of an output takes."""
    try:
        return disk.status_of_name(beside(path, "partial")).st_blocks * 512
    except OSError:
        return 0


@contextmanager
def published(
    path: Path, size: int, *, overwrite: bool, resume: bool = False, fingerprint: str = "", mode: int | None = None
) -> Iterator[LocalSink]:
    """One new file. `published_together` is the same for several."""
    with published_together([Output(path, size, fingerprint, mode)], overwrite=overwrite, resume=resume) as (file,):
        yield file


@contextmanager
def published_together(
    outputs: Sequence[Output], *, overwrite: bool, resume: bool = False
) -> Iterator[tuple[LocalSink, ...]]:
    """New files that get their names if the block succeeds, and vanish otherwise.

    All files are synced to the disk before the first one gets its name. If one of them cannot get its name, the others
    give theirs back. So each path has the old file or the complete new one, even after a power cut. The first output
    gets its name last, because readers of a split file open the first shard first.

    Args:
        outputs: The files that will be written.
        overwrite: Whether they may replace existing files.
        resume: Whether to continue from the files of a stopped run, and to keep unfinished files if this run is
            stopped.

    Raises:
        RefusedError: another run is writing one of the files; or one exists and may not be replaced.
        OutputError: a file cannot be written. An old file with its name is unchanged.
    """
    files = tuple(map(LocalSink, outputs))
    journals = ThreadPoolExecutor(1, "journals")
    try:
        left = [file.path for file in files if not resume and file.is_left]
        for file in files:
            file.begin(journals, overwrite=overwrite, resume=resume)
        if left:
            log.warning("%s: made anew: --resume would continue from what an earlier run finished", _named(left))
        yield files
        with phase(SYNC):
            for file in files:
                file.complete()
            _take_names(files, overwrite=overwrite)
    finally:
        try:
            for file in files:
                file.end(keep=resume)
        except BaseException:  # A signal may come in the middle of it.
            for file in files:
                file.end(keep=resume)
            raise
        finally:
            kept = [file.path for file in files if file.is_kept]
            if kept:
                log.warning(
                    "%s: the finished part is kept: run again with --resume to continue from there", _named(kept)
                )
            journals.shutdown()


def _named(paths: Sequence[Path]) -> str:
    return str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _take_names(files: Sequence[LocalSink], *, overwrite: bool) -> None:
    try:
        for file in reversed(files):
            file.take_name(overwrite=overwrite)
        for folder, file in {file.path.parent: file for file in files}.items():
            with output_errors(file.path):
                disk.sync_folder(folder)
    except BaseException:
        for file in files:
            with suppress(OSError):
                file.give_name_back()
        raise
