from __future__ import annotations

from functools import wraps
from pathlib import Path

import pytest
from checkpoints import tiny_llama

from gguf_forge.storage.local import disk


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model `Tiny` in it."""
    monkeypatch.chdir(tmp_path)
    tiny_llama(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "whole").mkdir()
    return tmp_path


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk takes long and changes nothing here."""
    for call in ("sync", "sync_data", "sync_folder"):
        monkeypatch.setattr(disk, call, wraps(getattr(disk, call))(lambda where: None))
