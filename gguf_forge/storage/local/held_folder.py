"""Folders that are held open while files are made in them.

Somebody who may rename in the folder above can put a link or another folder under its path at any moment. A folder that
is held open stays the same one. Its names are reached through it, so nothing that happens to the path leads a write, a
renaming or a removal elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from gguf_forge.errors import OutputError
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.output_errors import output_errors
from gguf_forge.storage.paths import is_there


class HeldFolder:
    """An open folder. `folder / name` is a name in it, which the functions of `disk` take.

    Where the system cannot reach names through an open folder, they are reached by their paths.

    Raises:
        OSError: the folder cannot be opened.

    Example:
        >>> with HeldFolder(Path("models")) as folder:  # doctest: +SKIP
        ...     disk.unlink(folder / "old.gguf")
    """

    def __init__(self, path: Path, descriptor: int | None = None):
        self.path = path
        self._descriptor = disk.open_folder(path) if descriptor is None else descriptor

    def __truediv__(self, name: str) -> Name:
        if name in ("", ".", "..") or os.sep in name:
            raise ValueError(f"{name!r} is not a name in a folder")
        return Name(self.path / name, self._descriptor if disk.HAS_HANDLES else None)

    def subfolder(self, name: str) -> HeldFolder:
        """Opens a folder in it, which may not be a link.

        Raises:
            OSError: it is a link or no folder, or cannot be opened.
        """
        return HeldFolder(self.path / name, disk.open_subfolder(self / name))

    def names(self) -> list[str]:
        """The names of all its entries, in no particular order."""
        return disk.list_folder(self._descriptor)

    def has(self, name: str) -> bool:
        """Whether it has an entry of this name. A broken link counts; what the system refuses does not."""
        try:
            disk.status_of_name(self / name)
        except OSError:
            return False
        return True

    def status(self, name: str) -> os.stat_result | None:
        """The status of a file in it, or of the file that a link leads to; None if there is none."""
        try:
            return disk.status_at(self / name)
        except OSError:
            return None

    def sync(self) -> None:
        """Waits until the names are on the disk."""
        disk.sync_folder(self._descriptor)

    @property
    def is_at_its_path(self) -> bool:
        """Whether the path still leads to this folder.

        Raises:
            OSError: the disk does not say what is at the path, which is no sign that it is another folder.
        """
        try:
            return os.path.samestat(disk.status(self.path), disk.status_of_open(self._descriptor))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def close(self) -> None:
        with suppress(OSError):  # An error here loses nothing.
            disk.close(self._descriptor)

    def __enter__(self) -> HeldFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def held(path: Path) -> HeldFolder:
    """Opens a folder for outputs.

    Raises:
        OutputError: it is missing, or cannot be opened.
    """
    try:
        with output_errors(path):
            return HeldFolder(path)
    except OutputError:
        if is_there(path):
            raise
        raise OutputError("the folder does not exist", file=path, hint="create it first") from None


@contextmanager
def made_folder(path: Path) -> Iterator[HeldFolder]:
    """Opens a folder for outputs, which is made if it is missing, as are those above it.

    If the block fails, the folders that were made are removed again if they are empty.

    Raises:
        OutputError: it cannot be made or opened.
    """
    with ExitStack() as opened:
        made: list[Name] = []
        try:
            yield _made(path, opened, made)
        except BaseException:
            with suppress(OSError):  # it is not empty
                for name in reversed(made):
                    disk.remove_folder(name)
            raise


def _made(path: Path, opened: ExitStack, made: list[Name]) -> HeldFolder:
    with output_errors(path):
        try:
            return opened.enter_context(HeldFolder(path))
        except FileNotFoundError:
            if path == path.parent or path.name == "..":
                raise
    parent = _made(path.parent, opened, made)
    with output_errors(path):
        made.append(parent / path.name)
        try:
            disk.make_folder(made[-1])
        except FileExistsError:  # Another run has made it meanwhile, and it is not for this one to remove.
            made.pop()
        return opened.enter_context(parent.subfolder(path.name))
