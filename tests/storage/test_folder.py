"""A folder's small files are read once: what was checked is what is used."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import NARROW, tiny_llama

from gguf_forge import plan
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.local.source_file import SourceFile


def test_a_file_that_changes_stays_what_it_was(tmp_path: Path) -> None:
    folder, file = LocalFolder(tmp_path), tmp_path / "config.json"
    file.write_bytes(b"{}")
    assert folder.read_small("config.json") == b"{}"
    file.write_bytes(b"[1]")
    assert folder.read_small("config.json") == b"{}"
    assert LocalFolder(tmp_path).read_small("config.json") == b"[1]"
    assert folder == LocalFolder(tmp_path)


def test_a_plan_reads_the_config_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama(tmp_path, NARROW)
    opened: list[str] = []

    class Counted(SourceFile):
        def __init__(self, path: Path) -> None:
            opened.append(path.name)
            super().__init__(path)

    monkeypatch.setattr("gguf_forge.storage.local.folder.SourceFile", Counted)
    plan(model, types="Q8_0")
    assert opened.count("config.json") == 1
    assert opened.count("tokenizer_config.json") == 1
