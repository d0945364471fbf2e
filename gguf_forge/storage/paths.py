"""What is at a path; a path that cannot be looked at, such as one that is too long, is nothing of either kind."""

from __future__ import annotations

from pathlib import Path


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Is it a regular file, or a link to one?"""
    try:
        return path.is_file()
    except OSError:
        return False


def is_there(path: Path) -> bool:
    """Is there anything, and not a link that leads nowhere?"""
    try:
        return path.exists()
    except OSError:
        return False


def is_same(path: Path, other: Path) -> bool:
    """Do both names lead to one file? A link that leads nowhere is the same as nothing."""
    try:
        return path.samefile(other)
    except OSError:
        return False
