"""Nothing is lost: the final name holds the old file or the complete new one."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from command_line import listing

from gguf_forge.errors import InputError, OutputError, RefusedError, UsageError
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.output import beside
from gguf_forge.storage.local.publish import check_output, check_room, published, published_together
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.sink import Output


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "out").mkdir()
    yield tmp_path / "out"


def write(path: Path, *, overwrite: bool = False) -> None:
    with published(path, 8, overwrite=overwrite) as out:
        out.write_at(4, memoryview(b"new"))


def test_a_file_appears_complete_with_zeros_where_nothing_was_written(folder: Path) -> None:
    write(folder / "a.gguf")
    assert (folder / "a.gguf").read_bytes() == b"\0\0\0\0new\0"
    assert [path.name for path in folder.iterdir()] == ["a.gguf"]


def test_permissions_are_those_of_any_new_file(folder: Path) -> None:
    (folder / "plain").touch()
    write(folder / "a.gguf")
    assert (folder / "a.gguf").stat().st_mode == (folder / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing_new_and_the_old_file(folder: Path, error: type[BaseException]) -> None:
    for before in (None, b"old"):
        if before:
            (folder / "a.gguf").write_bytes(before)
        with pytest.raises(error), published(folder / "a.gguf", 8, overwrite=True) as out:
            out.write_at(0, memoryview(b"half"))
            raise error
        assert [path.read_bytes() for path in folder.iterdir()] == [before] * bool(before)


@pytest.mark.parametrize("call", ["allocate", "pwrite", "sync"])
def test_a_failing_call_is_said_and_cleaned_up(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (folder / "a.gguf").write_bytes(b"old")
    monkeypatch.setattr(disk, call, fail)
    with pytest.raises(OutputError, match=r"a\.gguf: No space left on device"):
        write(folder / "a.gguf", overwrite=True)
    assert [path.read_bytes() for path in folder.iterdir()] == [b"old"]


def test_short_writes_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = disk.pwrite
    monkeypatch.setattr(disk, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1], offset))
    write(folder / "a.gguf")
    assert (folder / "a.gguf").read_bytes() == b"\0\0\0\0new\0"


def test_a_file_that_appears_meanwhile_is_not_replaced(folder: Path) -> None:
    with pytest.raises(RefusedError, match="appeared while"), published(folder / "a.gguf", 8, overwrite=False):
        (folder / "a.gguf").write_bytes(b"other")
    assert [path.read_bytes() for path in folder.iterdir()] == [b"other"]


def test_an_existing_file_needs_overwrite(folder: Path) -> None:
    (folder / "a.gguf").touch()
    with pytest.raises(RefusedError, match=r"already exists; .*overwrite=True"):
        check_output(folder / "a.gguf", 0, [], overwrite=False)
    check_output(folder / "a.gguf", 0, [], overwrite=True)


@pytest.mark.parametrize("link", [shutil.copyfile, os.symlink, os.link])
def test_inputs_are_never_the_output(source: Path, folder: Path, link: object) -> None:
    target = folder / "a.gguf"
    link(source, target)  # type: ignore[operator]
    if link is shutil.copyfile:
        check_output(target, 0, [source], overwrite=True)
        target = source
    with pytest.raises(RefusedError, match="is one of the inputs"):
        check_output(target, 0, [source], overwrite=True)


def test_a_dangling_link_counts_as_existing(folder: Path) -> None:
    (folder / "a.gguf").symlink_to(folder / "nowhere")
    with pytest.raises(RefusedError, match="already exists"):
        check_output(folder / "a.gguf", 0, [], overwrite=False)


def test_folders_and_devices_are_no_outputs(folder: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        check_output(folder, 0, [], overwrite=True)
    with pytest.raises(OutputError, match="Not a directory"):
        check_output(Path("/dev/null/no/a.gguf"), 0, [], overwrite=True)
    check_output(folder / "no" / "a.gguf", 0, [], overwrite=True)
    with pytest.raises(OutputError, match="not a regular file"):
        check_output(Path("/dev/full"), 0, [], overwrite=True)


def test_what_is_no_gguf_file_gets_no_name_of_one(folder: Path) -> None:
    for name in ("m.gguf", "M.GGUF"):
        with pytest.raises(UsageError, match="this is the name of a GGUF file, and a page is none"):
            check_output(folder / name, 0, [], overwrite=True, content="a page")
    check_output(folder / "m.gguf.html", 0, [], overwrite=True, content="a page")


def test_too_little_room_is_said_before_any_work(folder: Path) -> None:
    with pytest.raises(OutputError, match=r"needs 1,152,921,504,606,846,976 bytes and the disk has [\d,]+ free"):
        check_output(folder / "a.gguf", 1 << 60, [], overwrite=True)


@pytest.mark.parametrize("name", ["a.gguf", "new/deep/a.gguf"])
def test_a_folder_without_permission(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder)  # root may write everywhere
    with pytest.raises(OutputError, match="not writable") as caught:
        check_output(folder / name, 0, [], overwrite=True)
    assert caught.value.file == folder
    assert caught.value.hint == "choose another folder, or get the right to write to this one"


def failing(call: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Makes a function of the disk layer fail from now on."""

    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk, call, fail)


def test_two_runs_to_one_output(folder: Path) -> None:
    with published(folder / "a.gguf", 8, overwrite=True) as out:
        for overwrite in (False, True):
            with pytest.raises(RefusedError, match=r"a\.gguf: another run is writing this file; wait"):
                write(folder / "a.gguf", overwrite=overwrite)
        out.write_at(0, memoryview(b"first"))
    assert (folder / "a.gguf").read_bytes() == b"first\0\0\0"
    assert listing(folder) == ["a.gguf"]


def test_runs_to_other_outputs_do_not_meet(folder: Path) -> None:
    with published(folder / "a.gguf", 8, overwrite=False):
        write(folder / "b.gguf")
        write(folder.parent / "a.gguf")
    assert listing(folder) == ["a.gguf", "b.gguf"]


def test_a_second_run_does_not_work_for_nothing(folder: Path) -> None:
    """What the first run has published before the second one begins is not made again only to be refused."""
    write(folder / "a.gguf")
    with pytest.raises(RefusedError, match="already exists"):
        write(folder / "a.gguf")
    assert listing(folder) == ["a.gguf"]


@pytest.mark.parametrize("left", [b"", b"short", b"longer than the file"])
def test_what_a_killed_run_left_is_taken_over(folder: Path, left: bytes) -> None:
    beside(folder / "a.gguf", "partial").write_bytes(left)
    beside(folder / "a.gguf", "journal").write_bytes(left)
    beside(folder / "a.gguf", "old").write_bytes(left)
    write(folder / "a.gguf")
    assert (folder / "a.gguf").read_bytes() == b"\0\0\0\0new\0"
    assert listing(folder) == ["a.gguf"]


def test_a_run_that_was_killed_when_its_file_had_both_names(folder: Path) -> None:
    write(folder / "a.gguf")
    os.link(folder / "a.gguf", beside(folder / "a.gguf", "partial"))
    with pytest.raises(ValueError), published(folder / "a.gguf", 4, overwrite=True) as out:
        out.write_at(0, memoryview(b"half"))
        raise ValueError
    assert (folder / "a.gguf").read_bytes() == b"\0\0\0\0new\0"
    assert listing(folder) == ["a.gguf"]


def test_a_run_that_completes_between_the_opening_and_the_lock_of_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that the second one gets is of the finished file: it must not write into that."""
    path, lock = folder / "a.gguf", disk.lock
    beside(path, "partial").write_bytes(b"complete")

    def late(descriptor: int) -> bool:
        if not path.exists():
            beside(path, "partial").rename(path)
        return lock(descriptor)

    monkeypatch.setattr(disk, "lock", late)
    with pytest.raises(RefusedError, match="already exists"):
        write(path)
    assert path.read_bytes() == b"complete"
    assert listing(folder) == ["a.gguf"]


def test_a_link_in_place_of_the_unfinished_file_is_not_followed(folder: Path) -> None:
    (folder / "precious").write_bytes(b"precious")
    beside(folder / "a.gguf", "partial").symlink_to("precious")
    with pytest.raises(OutputError, match="symbolic links"):
        write(folder / "a.gguf")
    assert (folder / "precious").read_bytes() == b"precious"


def test_no_file_in_place_of_the_unfinished_file(folder: Path) -> None:
    os.mkfifo(beside(folder / "a.gguf", "partial"))
    with pytest.raises(OutputError, match=r"\.partial: is in the way: not a regular file; remove it"):
        write(folder / "a.gguf")


def test_the_unfinished_file_is_deleted_meanwhile(folder: Path) -> None:
    (folder / "a.gguf").write_bytes(b"old")
    with (
        pytest.raises(OutputError, match=r"partial: the unfinished file was removed or replaced"),
        published(folder / "a.gguf", 8, overwrite=True),
    ):
        beside(folder / "a.gguf", "partial").unlink()
    assert (folder / "a.gguf").read_bytes() == b"old"
    assert listing(folder) == ["a.gguf"]


def test_the_unfinished_file_of_another_run_is_not_published(folder: Path) -> None:
    """Somebody removes the file of one run, and begins another one."""
    path = folder / "a.gguf"
    with ExitStack() as stack:
        with pytest.raises(OutputError, match="removed or replaced"), published(path, 8, overwrite=True):
            beside(path, "partial").unlink()
            second = stack.enter_context(published(path, 8, overwrite=True))
        second.write_at(0, memoryview(b"second"))
    assert path.read_bytes() == b"second\0\0"
    assert listing(folder) == ["a.gguf"]


def test_an_output_that_is_deleted_or_replaced_meanwhile(folder: Path) -> None:
    path = folder / "a.gguf"
    for change in (path.unlink, lambda: path.write_bytes(b"other")):
        path.write_bytes(b"old")
        with published(path, 8, overwrite=True) as out:
            change()
            out.write_at(0, memoryview(b"new"))
        assert path.read_bytes() == b"new\0\0\0\0\0"
        assert listing(folder) == ["a.gguf"]


def test_a_folder_that_takes_the_name_meanwhile(folder: Path) -> None:
    for overwrite, error in ((True, OutputError), (False, RefusedError)):
        with pytest.raises(error), published(folder / "a.gguf", 8, overwrite=overwrite):
            (folder / "a.gguf").mkdir()
        (folder / "a.gguf").rmdir()
        assert listing(folder) == []


def outputs(folder: Path) -> list[Output]:
    return [Output(folder / name, 3) for name in ("1.gguf", "2.gguf", "3.gguf")]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("old", [(), ("1.gguf",), ("2.gguf", "3.gguf"), ("1.gguf", "2.gguf", "3.gguf")])
def test_files_of_one_run_appear_together_or_not_at_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, old: tuple[str, ...]
) -> None:
    """The renaming fails at each file in turn."""
    if old and not overwrite:
        return

    def except_of(unlucky: str, change: Callable[[Name, Name], None]) -> Callable[[Name, Name], None]:
        def sometimes(path: Name, to: Name) -> None:
            if to.name == unlucky and path.name.endswith(".partial"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            change(path, to)

        return sometimes

    for name in old:
        (folder / name).write_bytes(b"old")
    for unlucky in ("3.gguf", "2.gguf", "1.gguf"):
        with monkeypatch.context() as patch:
            for call in ("link", "rename"):
                patch.setattr(disk, call, except_of(unlucky, getattr(disk, call)))
            with pytest.raises(OutputError, match=f"{unlucky}: Input/output error"):
                write_all(folder, overwrite=overwrite)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == dict.fromkeys(old, b"old")
    write_all(folder, overwrite=overwrite)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        output.path.name: b"new" for output in outputs(folder)
    }


def write_all(folder: Path, *, overwrite: bool) -> None:
    with published_together(outputs(folder), overwrite=overwrite) as files:
        for file in files:
            file.write_at(0, memoryview(b"new"))


def test_a_file_system_without_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing("link", monkeypatch, errno.EPERM)
    write(folder / "a.gguf")
    write(folder / "a.gguf", overwrite=True)
    with pytest.raises(RefusedError, match="appeared while"), published(folder / "b.gguf", 8, overwrite=False):
        (folder / "b.gguf").touch()
    assert listing(folder) == ["a.gguf", "b.gguf"]


def test_a_file_system_without_locks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there may be somebody's: only the user can tell."""
    failing("lock", monkeypatch, errno.ENOLCK)
    with published(folder / "a.gguf", 8, overwrite=False):
        with pytest.raises(RefusedError, match=r"no locks to tell which; if none is running, remove .*\.partial"):
            write(folder / "a.gguf")
        assert len(listing(folder)) == 1
    assert listing(folder) == ["a.gguf"]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_reserve_room(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    failing("allocate", monkeypatch, number)
    write(folder / "a.gguf")
    assert (folder / "a.gguf").read_bytes() == b"\0\0\0\0new\0"


def test_room_is_reserved_before_any_work(folder: Path) -> None:
    with published(folder / "a.gguf", 1 << 20, overwrite=False):
        partial = beside(folder / "a.gguf", "partial").stat()
        # everywhere but where the file system cannot
        assert partial.st_size == 1 << 20
        assert partial.st_blocks * 512 >= 1 << 20 or not can_reserve(folder)


def can_reserve(folder: Path) -> bool:
    with (folder / "try").open("wb") as file:
        try:
            disk.allocate(file.fileno(), 4096)
        except OSError:
            return False
        finally:
            (folder / "try").unlink()
    return True


def test_what_a_killed_run_left_is_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = beside(folder / "a.gguf", "partial")
    left.write_bytes(bytes(1 << 20))
    held = left.stat().st_blocks * 512
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    check_room(folder, [(folder / "a.gguf", held + 100)])
    with pytest.raises(OutputError, match="the disk has"):
        check_room(folder, [(folder / "a.gguf", held + 101)])


def test_a_lock_ends_with_its_process(folder: Path) -> None:
    """Not with the file: another process that has it open does not keep it."""
    partial = beside(folder / "a.gguf", "partial")
    with partial.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="another run"):
            write(folder / "a.gguf")
    write(folder / "a.gguf")
    assert listing(folder) == ["a.gguf"]


def test_copies_of_a_source(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in (None, errno.EXDEV, errno.ENOSYS):
        if broken:
            failing("copy_range", monkeypatch, broken)
        with SourceFile(source) as file, published(folder / "a.gguf", 8, overwrite=True) as out:
            out.copy_from(file, 2, 1, 5)
        assert (folder / "a.gguf").read_bytes() == b"\0ights\0\0"[:8]


def test_a_source_that_ends_while_it_is_copied(source: Path, folder: Path) -> None:
    with (
        SourceFile(source) as file,
        pytest.raises(InputError, match="became shorter"),
        published(folder / "a.gguf", 8, overwrite=True) as out,
    ):
        os.truncate(source, 3)
        out.copy_from(file, 0, 0, 7)
    assert listing(folder) == []
