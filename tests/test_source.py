from __future__ import annotations

import os
from pathlib import Path

import pytest

from gguf_forge.errors import InputError
from gguf_forge.source import MappedFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(bytes(range(100)))
    return file


def test_views_are_the_bytes_and_cannot_be_written(path: Path) -> None:
    with MappedFile(path) as file:
        assert file.size == 100
        view = file.view(10, 5)
        assert view.tolist() == [10, 11, 12, 13, 14]
        assert file.view(100, 0).size == file.view(0, 0).size == 0
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1


@pytest.mark.parametrize(("offset", "nbytes"), [(-1, 1), (0, -1), (0, 101), (100, 1), (2**63, 1), (1, 2**64)])
def test_ranges_outside_the_file(path: Path, offset: int, nbytes: int) -> None:
    with MappedFile(path) as file, pytest.raises(InputError, match="outside the file of 100 bytes"):
        file.view(offset, nbytes)


def test_views_outlive_the_file(path: Path) -> None:
    file = MappedFile(path)
    view = file.view(0, 3)
    file.close()
    file.close()
    assert view.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="closed"):
        file.view(0, 3)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with MappedFile(tmp_path / "empty") as file:
        assert file.size == 0
        assert file.view(0, 0).size == 0


def test_changes_are_noticed(path: Path, tmp_path: Path) -> None:
    with MappedFile(path) as file:
        file.check_unchanged()
        os.utime(path, ns=(0, 0))
        with pytest.raises(InputError, match="changed"):
            file.check_unchanged()
    with MappedFile(path) as file:
        (tmp_path / "new").write_bytes(bytes(100))
        os.utime(tmp_path / "new", ns=(0, 0))
        (tmp_path / "new").rename(path)
        with pytest.raises(InputError, match="changed"):
            file.check_unchanged()
    with MappedFile(path) as file:
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
            MappedFile(tmp_path / name)
    with pytest.raises(InputError, match="not a regular file"):
        MappedFile(tmp_path)
