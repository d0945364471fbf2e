"""What paths lead to. Predicates are false for a path that the system refuses, such as one that is too long."""

from __future__ import annotations

from pathlib import Path


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether the path is a regular file, or a link to one."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_there(path: Path) -> bool:
    """Whether the path exists. A broken link does not count."""
    try:
        return path.exists()
    except OSError:
        return False


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there: in that one, missing folders are made.

    Example:
        >>> nearest_folder(Path("/no-such-folder/models")).as_posix()
        '/'
    """
    return next((each for each in (path, *path.parents) if is_there(each)), path)


def is_same(path: Path, other: Path) -> bool:
    """Whether both paths lead to the same file. A broken link is the same as no file."""
    try:
        return path.samefile(other)
    except OSError:
        return False


def resolved(path: Path) -> Path:
    """The absolute path without links. A path that the system refuses, or a link that leads to itself, stays as it is.

    Example:
        >>> resolved(Path("/bin/../bin")) == resolved(Path("/bin"))
        True
    """
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # the last one by Python before 3.13, for a link that leads to itself
        return path


def without_detours(path: Path) -> Path:
    """The same place without `..`. A relative path stays relative if it leads below the current folder.

    A path without `..` stays as it is, and so does one that the system refuses.

    Example:
        >>> without_detours(Path("models/../models/x.gguf")).as_posix()
        'models/x.gguf'
    """
    if ".." not in path.parts:
        return path
    place, here = resolved(path), resolved(Path())
    return place.relative_to(here) if place.is_relative_to(here) and not path.is_absolute() else place
