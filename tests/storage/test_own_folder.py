"""Folders of single runs: nobody takes one from a run that lives, and none outlasts its run for long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import listing

from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.held_folder import HeldFolder
from gguf_forge.storage.local.locks import locked_file
from gguf_forge.storage.local.own_folder import own_folder, remove_all_dead


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[HeldFolder]:
    with HeldFolder(tmp_path) as folder:
        yield folder


def test_a_folder_goes_with_its_run(parent: HeldFolder) -> None:
    with pytest.raises(ValueError), own_folder(parent) as own:
        (own.path / "a").touch()
        assert listing(parent.path) == [own.path.name, f"{own.path.name}.lock"]
        raise ValueError
    assert listing(parent.path) == []


def test_runs_do_not_meet(parent: HeldFolder) -> None:
    with own_folder(parent) as one:
        (one.path / "a").touch()
        with own_folder(parent) as other:
            (other.path / "a").touch()
            remove_all_dead(parent)
            assert listing(one.path) == listing(other.path) == ["a"]
        assert listing(one.path) == ["a"]


def test_a_lock_that_others_took_for_that_of_a_dead_run(parent: HeldFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come between its making and its locking, and remove it."""
    lock, seen = disk.lock, []

    def late(descriptor: int) -> bool:
        if not seen:
            (path,) = parent.path.iterdir()
            seen.append(path.name)
            return False
        if len(seen) == 1:
            (path,) = (path for path in parent.path.iterdir() if path.name not in seen)
            seen.append(path.name)
            path.unlink()
        return lock(descriptor)

    monkeypatch.setattr(disk, "lock", late)
    with own_folder(parent) as own:
        assert parent.has(f"{own.path.name}.lock")
        remove_all_dead(parent)
        assert own.path.exists()
    assert len(seen) == 2


def test_a_file_is_locked_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    name = Name(path)
    first = locked_file(name)
    assert first is not None
    assert locked_file(name) is None
    path.unlink()
    second = locked_file(name)  # the name is another file's now
    assert second is not None
    for descriptor in (first, second):
        os.close(descriptor)
    again = locked_file(name)
    assert again is not None
    os.close(again)
