"""Files that appear under their name complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gguf_forge.engine.profile import SYNC, phase
from gguf_forge.errors import OutputError, RefusedError

_LONGEST_NAME = 255


def check_output(path: Path, size: int, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Says before any work what would go wrong after it.

    Args:
        path: The file to be.
        size: Its bytes.
        inputs: Files that it must not replace.
        overwrite: An existing file may be replaced.

    Raises:
        RefusedError: the path is an input (by name, link or hard link), or exists and may not be replaced.
        OutputError: it is a folder, its folder is missing or not writable, or the disk has too little room.
    """
    if path.is_dir():
        raise OutputError("is a folder", file=path, hint="name a file in it")
    if not path.parent.is_dir():
        raise OutputError("the folder does not exist", file=path.parent, hint="create it first")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise OutputError(
            f"the file's name is longer than {_LONGEST_NAME} bytes", file=path, hint="choose a shorter name"
        )
    if path.exists() and not path.is_file():
        raise OutputError("is not a regular file", file=path, hint="choose another name")
    if path.exists() and any(_is_same(path, source) for source in inputs):
        raise RefusedError("the output is one of the inputs", file=path, hint="choose another name")
    if os.path.lexists(path) and not overwrite:
        raise RefusedError("exists already", file=path, hint="choose another name, or say --overwrite")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError("the folder is not writable", file=path.parent)
    check_room(path.parent, size)


def _is_same(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return False  # a link that leads nowhere is nothing that could be lost


def check_room(folder: Path, size: int) -> None:
    """Raise OutputError if the disk of `folder` has less than `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OutputError(
            f"this needs {size:,} bytes and the disk has {free:,} free",
            file=folder,
            hint="free some room, or choose a folder on another disk",
        )


class OutputFile:
    """A file of known size that is written at offsets, by several threads if need be."""

    def __init__(self, descriptor: int, path: Path):
        self._descriptor = descriptor
        self._path = path

    def write_at(self, offset: int, data: memoryview) -> None:
        """Writes all of `data`, however many calls that takes."""
        try:
            while data:
                written = os.pwrite(self._descriptor, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise _output_error(error, self._path) from None


@contextmanager
def published(path: Path, size: int, *, overwrite: bool) -> Iterator[OutputFile]:
    """A new file beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Bytes that are not written are zero. The file and its folder are synced before and after the renaming, so
    that the path holds the old file or the complete new one, also after a power cut.
    """
    # not made of the name, which may be as long as a name can be
    partial = path.with_name(f".gguf-forge-{secrets.token_hex(8)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise _output_error(error, path) from None
    try:
        try:
            os.truncate(descriptor, size)
            yield OutputFile(descriptor, path)
            with phase(SYNC):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _rename(partial, path, overwrite=overwrite)
    except OSError as error:
        raise _output_error(error, path) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def _rename(partial: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        partial.replace(path)
    else:
        _take_free_name(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _take_free_name(partial: Path, path: Path) -> None:
    """Names a file as long as nothing else has the name: unlike renaming, linking never replaces."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise RefusedError("appeared while it was being made", file=path, hint="choose another name") from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise RefusedError("appeared while it was being made", file=path, hint="choose another name") from None
        partial.replace(path)


def _output_error(error: OSError, path: Path) -> OutputError:
    return OutputError(error.strerror or str(error), file=path, hint="nothing was changed under this name")
