"""Folders that others can write to: nothing that they put there is written to, continued or published."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import listing

from gguf_forge.errors import OutputError
from gguf_forge.storage.local import disk, journal
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.output import beside
from gguf_forge.storage.local.publish import published

SIZE = 64
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture(autouse=True)
def usual_umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(journal, "BATCH_BYTES", 1)
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared" / "a.gguf"


def stop(path: Path) -> None:
    """A run that writes its first ten bytes and stops."""
    with pytest.raises(ValueError), published(path, SIZE, overwrite=False, resume=True) as out:
        out.write_at(0, memoryview(b"x" * 10))
        out.finished(0, 10)
        raise ValueError


def resumed(path: Path) -> bool:
    """Whether a run continues that one. The run completes."""
    with published(path, SIZE, overwrite=True, resume=True) as out:
        return out.has(0, 10)


def given_away(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def opened_up(path: Path) -> None:
    path.chmod(0o666)


def linked(path: Path) -> None:
    os.link(path, path.with_name("another name"))


def test_a_run_continues_its_own_file(path: Path) -> None:
    stop(path)
    assert resumed(path)
    assert path.read_bytes() == b"x" * 10 + bytes(SIZE - 10)
    assert listing(path.parent) == ["a.gguf"]


@pytest.mark.parametrize("umask", [0, 0o002, 0o027, 0o077, 0o777])
def test_a_run_continues_its_own_file_under_any_umask(path: Path, umask: int) -> None:
    os.umask(umask)
    (path.parent / "plain").touch()
    stop(path)
    assert resumed(path) or umask == 0o777  # then the file cannot even be opened, except by root
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


@pytest.mark.parametrize("ending", ["partial", "journal"])
@pytest.mark.parametrize("change", [pytest.param(given_away, marks=needs_root), opened_up])
def test_a_file_that_others_may_have_written_is_not_continued(
    path: Path, ending: str, change: Callable[[Path], None]
) -> None:
    stop(path)
    change(beside(path, ending))
    assert not resumed(path)
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (os.geteuid(), 0o644)
    assert path.read_bytes() == bytes(SIZE)


def test_a_file_with_a_second_name_is_not_continued(path: Path) -> None:
    stop(path)
    linked(beside(path, "partial"))
    assert not resumed(path)
    assert (path.parent / "another name").read_bytes() == b"x" * 10 + bytes(SIZE - 10)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("change", [pytest.param(given_away, marks=needs_root), opened_up, linked])
def test_a_file_that_waits_for_the_run_is_not_written_to(
    path: Path, change: Callable[[Path], None], resume: bool
) -> None:
    """Whoever put it there may have it open, and could change the output after it was published."""
    waiting = beside(path, "partial")
    waiting.touch()
    change(waiting)
    with waiting.open("rb+") as held:
        with published(path, SIZE, overwrite=False, resume=resume) as out:
            out.write_at(0, memoryview(b"GGUF"))
        held.write(b"EVIL")
    assert path.read_bytes()[:4] == b"GGUF"
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (os.geteuid(), 0o644)


@pytest.mark.parametrize("call", ["unlink", "open_own"])
def test_a_file_that_cannot_be_removed_is_named(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """In a folder such as /tmp, only its owner can remove a file."""
    beside(path, "partial").write_bytes(b"precious")

    def refuse(at: Name) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(disk, call, refuse)
    problem = r"partial: is in the way: another user's file; remove it, or choose"
    with pytest.raises(OutputError, match=problem), published(path, SIZE, overwrite=False):
        pass
    assert beside(path, "partial").read_bytes() == b"precious"


@pytest.mark.parametrize("ending", ["journal", "old", "probe"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_links_and_pipes_are_removed_and_not_opened(path: Path, ending: str, kind: str) -> None:
    stop(path)
    (path.parent / "precious").write_bytes(b"precious")
    left = beside(path, ending)
    left.unlink(missing_ok=True)
    left.symlink_to("precious") if kind == "link" else os.mkfifo(left)
    assert resumed(path) is (ending != "journal")
    assert (path.parent / "precious").read_bytes() == b"precious"
    assert listing(path.parent) == ["a.gguf", "precious"]


def test_only_the_file_that_was_replaced_comes_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody puts a file under the name of the old one just before the run would make it."""
    path.write_bytes(b"old")
    link, rename = disk.link, disk.rename

    def raced(at: Name, to: Name) -> None:
        to.path.write_bytes(b"planted")
        link(at, to)

    def renamed(at: Name, to: Name) -> None:
        rename(at, to)
        if to.path == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(disk, "link", raced)
    monkeypatch.setattr(disk, "rename", renamed)
    with pytest.raises(OutputError, match="Input/output error"), published(path, SIZE, overwrite=True):
        pass
    assert path.read_bytes() != b"planted"
