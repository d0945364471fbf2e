"""Folders of single runs: nobody takes one from a run that lives, and none outlasts its run for long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import listing

from gguf_forge.storage.local import disk
from gguf_forge.storage.local.locks import locked_file
from gguf_forge.storage.local.own_folder import own_folder, remove_all_dead


def test_a_folder_goes_with_its_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError), own_folder(tmp_path) as own:
        (own / "a").touch()
        assert listing(tmp_path) == [own.name, f"{own.name}.lock"]
        raise ValueError
    assert listing(tmp_path) == []


def test_runs_do_not_meet(tmp_path: Path) -> None:
    with own_folder(tmp_path) as one:
        (one / "a").touch()
        with own_folder(tmp_path) as other:
            (other / "a").touch()
            remove_all_dead(tmp_path)
            assert listing(one) == listing(other) == ["a"]
        assert listing(one) == ["a"]


def test_a_lock_that_others_took_for_that_of_a_dead_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come between its making and its locking, and remove it."""
    lock, seen = disk.lock, []

    def late(descriptor: int) -> bool:
        if not seen:
            (path,) = tmp_path.iterdir()
            seen.append(path.name)
            return False
        if len(seen) == 1:
            (path,) = (path for path in tmp_path.iterdir() if path.name not in seen)
            seen.append(path.name)
            path.unlink()
        return lock(descriptor)

    monkeypatch.setattr(disk, "lock", late)
    with own_folder(tmp_path) as own:
        assert own.with_name(f"{own.name}.lock").exists()
        remove_all_dead(tmp_path)
        assert own.exists()
    assert len(seen) == 2


def test_a_file_is_locked_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = locked_file(path)
    assert first is not None
    assert locked_file(path) is None
    path.unlink()
    second = locked_file(path)  # the name is another file's now
    assert second is not None
    for descriptor in (first, second):
        os.close(descriptor)
    again = locked_file(path)
    assert again is not None
    os.close(again)
