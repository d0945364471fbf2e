"""Paths, also those that the system refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.storage.paths import resolved, without_detours


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert resolved(tmp_path / "link" / ".." / "x") == tmp_path / "x"
    assert without_detours(tmp_path / "link" / ".." / "x") == tmp_path / "x"


@pytest.mark.parametrize("path", ["loop", "loop/x", "loop/../x", "x" * 5000, "\0"])
def test_what_the_system_refuses_stays_as_it_is(path: str, tmp_path: Path) -> None:
    """Python before 3.13 raises a RuntimeError for a link that leads to itself."""
    (tmp_path / "loop").symlink_to("loop")
    assert resolved(tmp_path / path) in (tmp_path / path, tmp_path / "x")
    assert without_detours(tmp_path / path) in (tmp_path / path, tmp_path / "x")


def test_a_relative_path_stays_relative_below_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_detours(Path("a/../b")) == Path("b")
    assert without_detours(Path("../b")) == tmp_path.parent / "b"
