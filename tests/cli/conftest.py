from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def model(_made: Path) -> Path:
    """A tiny Llama folder; tests only read it."""
    return _made


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that tests start import the installed package, not the sources of the working folder."""
    monkeypatch.chdir(tmp_path)
