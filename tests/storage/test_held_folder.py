"""Folders for outputs that are made where they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.held_folder import made_folder


@pytest.mark.parametrize("path", ["out", "out/deep"])
def test_a_folder_that_another_run_makes_first_is_used_and_stays(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = disk.make_folder

    def make_after_another(at: Name) -> None:
        make(at)
        make(at)

    monkeypatch.setattr(disk, "make_folder", make_after_another)
    with pytest.raises(KeyboardInterrupt), made_folder(tmp_path / path) as folder:
        assert folder.path == tmp_path / path
        raise KeyboardInterrupt
    assert (tmp_path / path).is_dir()
