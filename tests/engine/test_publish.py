"""Nothing is lost: the final name holds the old file or the complete new one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gguf_forge.engine.publish import check_output, published
from gguf_forge.errors import OutputError, RefusedError


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


@pytest.mark.parametrize("call", ["truncate", "pwrite", "fsync"])
def test_a_failing_call_is_said_and_cleaned_up(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (folder / "a.gguf").write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OutputError, match=r"a\.gguf: No space left on device"):
        write(folder / "a.gguf", overwrite=True)
    assert [path.read_bytes() for path in folder.iterdir()] == [b"old"]


def test_short_writes_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1], offset))
    write(folder / "a.gguf")
    assert (folder / "a.gguf").read_bytes() == b"\0\0\0\0new\0"


def test_a_file_that_appears_meanwhile_is_not_replaced(folder: Path) -> None:
    with pytest.raises(RefusedError, match="appeared while"), published(folder / "a.gguf", 8, overwrite=False):
        (folder / "a.gguf").write_bytes(b"other")
    assert [path.read_bytes() for path in folder.iterdir()] == [b"other"]


def test_an_existing_file_needs_overwrite(folder: Path) -> None:
    (folder / "a.gguf").touch()
    with pytest.raises(RefusedError, match=r"exists already; .*--overwrite"):
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
    with pytest.raises(RefusedError, match="exists already"):
        check_output(folder / "a.gguf", 0, [], overwrite=False)


def test_folders_and_devices_are_no_outputs(folder: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        check_output(folder, 0, [], overwrite=True)
    with pytest.raises(OutputError, match="the folder does not exist"):
        check_output(folder / "no" / "a.gguf", 0, [], overwrite=True)
    with pytest.raises(OutputError, match="not a regular file"):
        check_output(Path("/dev/full"), 0, [], overwrite=True)


def test_too_little_room_is_said_before_any_work(folder: Path) -> None:
    with pytest.raises(OutputError, match=r"needs 1,152,921,504,606,846,976 bytes and the disk has [\d,]+ free"):
        check_output(folder / "a.gguf", 1 << 60, [], overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(OutputError, match="not writable"):
        check_output(folder / "a.gguf", 0, [], overwrite=True)
