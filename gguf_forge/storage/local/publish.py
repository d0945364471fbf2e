"""Output files that appear under their names when they are complete, or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from types import MappingProxyType

from gguf_forge.errors import OutputError, RefusedError, UsageError
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.held_folder import HeldFolder, held
from gguf_forge.storage.local.output import ENDINGS, LocalSink, beside, refuse_existing
from gguf_forge.storage.local.output_errors import MORE_ROOM, output_errors
from gguf_forge.storage.paths import is_folder, nearest_folder
from gguf_forge.storage.profile import SYNC, phase
from gguf_forge.storage.sink import Output
from gguf_forge.wording import log_of

log = log_of(__name__)

_LONGEST_NAME = 255
# The names that `beside` gives.
_UNFINISHED = re.compile(r"\.gguf-forge-[0-9a-f]{16}\.partial")


def check_output(
    path: Path,
    size: int,
    inputs: Iterable[Path],
    *,
    overwrite: bool,
    folder: HeldFolder | None = None,
    content: str | None = None,
) -> None:
    """Checks before any work whether the output can be written.

    Args:
        path: The path of the output.
        size: Its size in bytes.
        inputs: Files that it must not replace.
        overwrite: Whether an existing file may be replaced.
        folder: The folder of `path`, if it is held open. Without it, the folder may be missing: it will be made.
        content: What the output is, if it is no GGUF file, such as "a list of checksums". It gets no name of one.

    Raises:
        UsageError: the output is no GGUF file and would have the name of one.
        RefusedError: the path is an input (by name, link or hard link), or exists and may not be replaced.
        OutputError: the path is a folder, its folder is not writable or cannot be made, or the disk has too little
            room.
    """
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise OutputError(
            f"the file's name is longer than {_LONGEST_NAME} bytes", file=path, hint="choose a shorter name"
        )
    if is_folder(path):
        raise OutputError("is a folder", file=path, hint="name a file in it")
    place = nearest_folder(path.parent)
    with ExitStack() as opened:
        folder = folder or opened.enter_context(held(place))
        if place == path.parent:
            _check_name(folder, path, inputs)
            if not overwrite:
                refuse_existing(folder, path, "already exists")
    if not os.access(place, os.W_OK | os.X_OK):
        hint = "choose another folder, or get the right to write to this one"
        raise OutputError("the folder is not writable", file=place, hint=hint)
    if content is not None and path.suffix.lower() == ".gguf":
        problem = f"this is the name of a GGUF file, and {content} is none"
        raise UsageError(problem, file=path, hint="choose a name with another ending")
    check_room(path.parent, [(path, size)])


def _check_name(folder: HeldFolder, path: Path, inputs: Iterable[Path]) -> None:
    """Raises the errors of `check_output` about a file that the folder has under this name."""
    old = folder.status(path.name)
    if old is None:
        return
    if not S_ISREG(old.st_mode):
        raise OutputError("is not a regular file", file=path, hint="choose another name")
    for source in inputs:
        with suppress(OSError):  # a source that is gone cannot be replaced
            if os.path.samestat(old, disk.status(source)):
                raise RefusedError("the output is one of the inputs", file=path, hint="choose another name")


def check_room(folder: Path, outputs: Sequence[tuple[Path, int]]) -> None:
    """Raises OutputError if the disk has too little room for files of these sizes, all in `folder`.

    A folder that is missing will be made on the disk of the nearest one above it that is there.
    Unfinished files that killed runs left under the same names count as free room, because they are used again.
    """
    size = sum(size for _, size in outputs)
    with output_errors(folder):
        free = shutil.disk_usage(nearest_folder(folder)).free + sum(_left_behind(path) for path, _ in outputs)
    if free < size:
        raise OutputError(f"this needs {size:,} bytes and the disk has {free:,} free", file=folder, hint=MORE_ROOM)


def tidy(path: Path, folder: HeldFolder) -> None:
    """Removes temporary files that a killed run left next to a complete file, unless another run uses them now."""
    if any(folder.has(beside(path, ending).name) for ending in ENDINGS):
        file = LocalSink(Output(path, 0), folder)
        with suppress(OutputError, RefusedError):
            file.take()
        file.end(keep=False)


def unfinished(folder: HeldFolder) -> tuple[int, int]:
    """How many unfinished files a folder has, and the bytes that they take on the disk.

    Their names do not tell the output, and another run may be at work on them. So nobody but the user can remove them.
    A folder that cannot be listed counts as one without such files, because the run that asks is over, and was right.
    """
    try:
        names = folder.names()
    except OSError:
        names = []
    sizes = []
    for name in filter(_UNFINISHED.fullmatch, names):
        with suppress(OSError):  # its run has just completed it
            found = disk.status_of_name(folder / name)
            if S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                sizes.append(found.st_blocks * 512)
    return len(sizes), sum(sizes)


def _left_behind(path: Path) -> int:
    """The room on the disk that the unfinished file of an output takes."""
    try:
        return disk.status_of_name(Name(beside(path, "partial"))).st_blocks * 512
    except OSError:
        return 0


@contextmanager
def published(
    path: Path,
    size: int,
    *,
    overwrite: bool,
    resume: bool = False,
    fingerprint: str = "",
    mode: int | None = None,
    folder: HeldFolder | None = None,
) -> Iterator[LocalSink]:
    """One new file. `published_together` is the same for several."""
    outputs, folders = [Output(path, size, fingerprint, mode)], {path.parent: folder} if folder is not None else {}
    with published_together(outputs, overwrite=overwrite, resume=resume, folders=folders) as (file,):
        yield file


@contextmanager
def published_together(
    outputs: Sequence[Output],
    *,
    overwrite: bool,
    resume: bool = False,
    folders: Mapping[Path, HeldFolder] = MappingProxyType({}),
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
        folders: The outputs' folders that are held open, by their paths. They must be those in which the outputs were
            checked, so that nobody can put others under their paths between the check and the writing.

    Raises:
        RefusedError: another run is writing one of the files; or one exists and may not be replaced.
        OutputError: a file cannot be written. An old file with its name is unchanged.
    """
    with ExitStack() as opened:
        parents = dict.fromkeys(output.path.parent for output in outputs)
        every = {path: folders.get(path) or opened.enter_context(held(path)) for path in parents}
        with _published(every, outputs, overwrite=overwrite, resume=resume) as files:
            yield files


@contextmanager
def _published(
    folders: Mapping[Path, HeldFolder], outputs: Sequence[Output], *, overwrite: bool, resume: bool
) -> Iterator[tuple[LocalSink, ...]]:
    files = tuple(LocalSink(output, folders[output.path.parent]) for output in outputs)
    journals = ThreadPoolExecutor(1, "journals")
    try:
        left = [file.path for file in files if not resume and file.is_left]
        for file in files:
            file.begin(journals, overwrite=overwrite, resume=resume)
        if left:
            log.warning("%s: starting over; --resume would continue from what an earlier run finished", _named(left))
        yield files
        with phase(SYNC):
            for file in files:
                file.complete()
            _take_names(files, folders, overwrite=overwrite)
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


def _take_names(files: Sequence[LocalSink], folders: Mapping[Path, HeldFolder], *, overwrite: bool) -> None:
    try:
        for file in reversed(files):
            file.take_name(overwrite=overwrite)
        for path, folder in folders.items():
            with output_errors(path):
                folder.sync()
    except BaseException:
        for file in files:
            with suppress(OSError):
                file.give_name_back()
        raise
