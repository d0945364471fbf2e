from __future__ import annotations

import os
from pathlib import Path

import pytest

from gguf_forge.errors import InputError
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.views import Concatenated, Section


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(bytes(range(100)))
    return file


def test_what_is_read_is_the_bytes(path: Path) -> None:
    with SourceFile(path) as file:
        assert file.size == 100
        assert file.read(10, 5).tolist() == [10, 11, 12, 13, 14]
        assert file.read(100, 0).size == file.read(0, 0).size == 0


@pytest.mark.parametrize(("offset", "nbytes"), [(-1, 1), (0, -1), (0, 101), (100, 1), (2**63, 1), (1, 2**64)])
def test_ranges_outside_the_file(path: Path, offset: int, nbytes: int) -> None:
    with SourceFile(path) as file, pytest.raises(InputError, match="outside the file of 100 bytes"):
        file.read(offset, nbytes)


def test_pieces_are_read_at_equal_distances(path: Path) -> None:
    with SourceFile(path) as file:
        assert file.read_pieces(10, 2, 30, 3).tolist() == [[10, 11], [40, 41], [70, 71]]
        assert Section(file, 10, 62).read_pieces(0, 2, 30, 3).tolist() == [[10, 11], [40, 41], [70, 71]]
        both = Concatenated((file, file))
        assert both.read_pieces(90, 20, 30, 2).tolist()[0] == [*range(90, 100), *range(10)]
        for offset, nbytes, step, count in ((10, 2, 30, 4), (-1, 2, 30, 2), (0, 2**40, 2**40, 2**20)):
            with pytest.raises(InputError, match="outside the file of 100 bytes"):
                file.read_pieces(offset, nbytes, step, count)
        with pytest.raises(InputError, match="outside of 62 bytes"):
            Section(file, 10, 62).read_pieces(2, 2, 30, 3)


def test_nothing_is_read_after_closing(path: Path) -> None:
    file = SourceFile(path)
    read = file.read(0, 3)
    file.close()
    file.close()
    assert read.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="closed"):
        file.read(0, 3)


def test_a_file_that_shrinks_is_an_error(path: Path) -> None:
    with SourceFile(path) as file:
        os.truncate(path, 50)
        assert file.read(40, 10).tolist() == list(range(40, 50))
        with pytest.raises(InputError, match="became shorter"):
            file.read(40, 20)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with SourceFile(tmp_path / "empty") as file:
        assert file.size == 0
        assert file.read(0, 0).size == 0


def test_changes_are_noticed(path: Path, tmp_path: Path) -> None:
    with SourceFile(path) as file:
        file.check_unchanged()
        os.utime(path, ns=(0, 0))
        with pytest.raises(InputError, match="changed"):
            file.check_unchanged()
    with SourceFile(path) as file:
        (tmp_path / "new").write_bytes(bytes(100))
        os.utime(tmp_path / "new", ns=(0, 0))
        (tmp_path / "new").rename(path)
        with pytest.raises(InputError, match="changed"):
            file.check_unchanged()
    with SourceFile(path) as file:
        path.unlink()
        with pytest.raises(InputError, match="vanished"):
            file.check_unchanged()


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, problem in (
        ("none", "No such file"),
        ("pipe", "not a regular file"),
        ("loop", "symbolic links"),
    ):
        with pytest.raises(InputError, match=problem):
            SourceFile(tmp_path / name)
    with pytest.raises(InputError, match="this is a folder, not a file"):
        SourceFile(tmp_path)
